"""Kimi Delta Attention: the gated delta rule with a decay for every key channel.

Kimi Team, "Kimi Linear", 2025 (arXiv 2510.26692), section 3.

    S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T
    a_t = exp(-exp(A_log) softplus(W_2 W_1 x_t + dt_bias)),  b_t = sigmoid(W_b x_t)
    y_t = W_o (sigmoid(W_g x_t) * norm_h(S_t^T q_t))

Where Gated DeltaNet clears a head's whole memory at one rate, each channel here has its own. The
decay passes through as many channels as a head has, to save parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from linearch.kernels import activation, chunk_delta
from linearch.search_space.layers import (
    GatedRMSNorm,
    PackedProjection,
    ShortConvolution,
    merge_heads,
    split_heads,
)

DT_MIN, DT_MAX = 1e-3, 1e-1


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        rank = d_model // n_heads
        widths = [3 * d_model, d_model, n_heads, rank]  # (q, k, v), gate, beta, decay
        self.in_proj = PackedProjection(d_model, widths)
        self.decay_proj = nn.Linear(rank, d_model, bias=False)
        self.conv = ShortConvolution(
            3 * d_model, normalise=2 * d_model, head_dim=d_model // n_heads
        )
        self.A_log = nn.Parameter(torch.empty(n_heads, 1).uniform_(1, 16).log())
        dt = torch.empty(d_model).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus's inverse
        self.norm = GatedRMSNorm(d_model // n_heads, activation="sigmoid")
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, gate, beta, low_rank = self.in_proj(x)
        qkv, conv = self.conv(qkv, None if state is None else state["conv"])
        q, k, v = split_heads(qkv, 3 * self.n_heads).chunk(3, dim=2)  # [B, T, H, K]
        log_decay = activation(  # [B, T, H, K]
            split_heads(self.decay_proj(low_rank), self.n_heads),
            "softplus",
            bias=split_heads(self.dt_bias, self.n_heads),
            rate=-self.A_log.exp(),
            out_dtype=torch.float32,
        )

        o, memory = chunk_delta(
            q,
            k,
            v,
            activation(beta, "sigmoid", out_dtype=torch.float32),  # [B, T, H]
            log_decay,
            initial_state=None if state is None else state["memory"],
        )

        y = self.norm(o, split_heads(gate, self.n_heads))
        return self.out_proj(merge_heads(y)), {"memory": memory, "conv": conv}
