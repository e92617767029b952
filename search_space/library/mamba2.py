"""Mamba-2: a state space model whose heads decay by one scalar a token.

Dao and Gu, "Transformers are SSMs", 2024 (arXiv 2405.21060), sections 6 and 7.

    S_t = exp(-A dt_t) S_{t-1} + (dt_t B_t) x_t^T     dt_t = softplus(W_dt u_t + dt_bias)
    y_t = S_t^T C_t + D x_t

In attention's words C is the query, B the key and x the value. One step size dt both writes and
forgets: large steps take in the token and drop the past. x, B and C pass a short convolution; B and
C are shared by all heads; x is twice as wide as the model; the output is gated, then normalised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from linearch.kernels import activation, chunk_decay, gated_product, scaled_heads
from linearch.search_space.layers import (
    PackedProjection,
    RMSNorm,
    ShortConvolution,
    merge_heads,
    split_heads,
)

DT_MIN, DT_MAX = 1e-3, 1e-1


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        inner, d_state = 2 * d_model, d_model // n_heads
        widths = [inner, inner + 2 * d_state, n_heads]  # gate, (x, B, C), dt
        self.conv_widths = [inner, d_state, d_state]
        self.in_proj = PackedProjection(d_model, widths)
        self.conv = ShortConvolution(sum(self.conv_widths), bias=True)
        self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        dt = torch.empty(n_heads).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus's inverse
        self.D = nn.Parameter(torch.ones(n_heads))
        self.norm = RMSNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gate, xBC, dt = self.in_proj(x)
        xBC, conv = self.conv(xBC, None if state is None else state["conv"])
        value, B, C = xBC.split(self.conv_widths, dim=-1)
        value = split_heads(value, self.n_heads)  # [B, T, H, V]
        dt = activation(dt, "softplus", bias=self.dt_bias, out_dtype=torch.float32)  # [B, T, H]

        key = scaled_heads(B.unsqueeze(2), dt)  # [B, T, H, K]: narrower than the value
        o, memory = chunk_decay(
            C.unsqueeze(2).expand_as(key),
            key,
            value,
            -self.A_log.exp() * dt,
            scale=1.0,
            initial_state=None if state is None else state["memory"],
        )

        gate, rate = split_heads(gate, self.n_heads), self.D.unsqueeze(-1)  # [H, 1]
        o = merge_heads(gated_product(o, gate, skip=value, skip_rate=rate))
        return self.out_proj(self.norm(o)), {"memory": memory, "conv": conv}
