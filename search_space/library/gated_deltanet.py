"""Gated DeltaNet: the delta rule erases one association, a decay clears the whole memory.

Yang, Kautz and Hatamizadeh, 2024 (arXiv 2412.06464), equation 10.

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T
    a_t = exp(-exp(A_log) softplus(W_a x_t + dt_bias)),  b_t = sigmoid(W_b x_t)
    y_t = W_o (swish(W_g x_t) * norm_h(S_t^T q_t))

The decay is Mamba-2's, one scalar a head and token. Keys and values have one width here, so that
its state is as large as DeltaNet's and a difference is the rule's, not the size's.
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
        widths = [3 * d_model, d_model, n_heads, n_heads]  # (q, k, v), gate, beta, decay
        self.in_proj = PackedProjection(d_model, widths)
        self.conv = ShortConvolution(
            3 * d_model, normalise=2 * d_model, head_dim=d_model // n_heads
        )
        self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        dt = torch.empty(n_heads).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus's inverse
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, gate, beta, decay = self.in_proj(x)
        qkv, conv = self.conv(qkv, None if state is None else state["conv"])
        q, k, v = split_heads(qkv, 3 * self.n_heads).chunk(3, dim=2)  # [B, T, H, K]
        rate, out_dtype = -self.A_log.exp(), torch.float32

        o, memory = chunk_delta(
            q,
            k,
            v,
            activation(beta, "sigmoid", out_dtype=out_dtype),  # [B, T, H]
            activation(decay, "softplus", bias=self.dt_bias, rate=rate, out_dtype=out_dtype),
            initial_state=None if state is None else state["memory"],
        )

        y = self.norm(o, split_heads(gate, self.n_heads))
        return self.out_proj(merge_heads(y)), {"memory": memory, "conv": conv}
