"""DeltaNet whose transitions reach -1: the state can flip a sign, and so count modulo two.

Grazzini et al., 2024 (arXiv 2411.12537): with strengths up to 2 the eigenvalue 1 - b of the delta
rule lies in [-1, 1] in the place of [0, 1], which parity needs. All else is the library's DeltaNet.

    S_t = (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,   b_t = 2 sigmoid(W_b x_t)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linearch.kernels import activation, chunk_delta
from linearch.search_space.layers import (
    PackedProjection,
    RMSNorm,
    ShortConvolution,
    merge_heads,
    split_heads,
)


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj = PackedProjection(d_model, [3 * d_model, n_heads])  # (q, k, v), beta
        self.conv = ShortConvolution(
            3 * d_model, normalise=2 * d_model, head_dim=d_model // n_heads
        )
        self.norm = RMSNorm(d_model // n_heads)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        qkv, beta = self.in_proj(x)
        qkv, conv = self.conv(qkv, None if state is None else state["conv"])
        q, k, v = split_heads(qkv, 3 * self.n_heads).chunk(3, dim=2)  # [B, T, H, K]

        o, memory = chunk_delta(
            q,
            k,
            v,
            activation(beta, "sigmoid", rate=2.0, out_dtype=torch.float32),  # [B, T, H]
            initial_state=None if state is None else state["memory"],
        )

        return self.out_proj(merge_heads(self.norm(o))), {"memory": memory, "conv": conv}
