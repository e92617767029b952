"""DeltaNet: before a value is written, what its key already recalls is erased.

Yang et al., "Parallelizing Linear Transformers with the Delta Rule", 2024 (arXiv 2406.06484).

    S_t = (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T     b_t = sigmoid(W_b x_t)
    o_t = S_t^T q_t

One step of gradient descent on |S^T k_t - v_t|^2 with rate b_t. q, k and v pass a short convolution
and SiLU; q and k have unit length, so with b_t <= 1 the erasing never overshoots.
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
        widths = [3 * d_model, n_heads]  # (q, k, v), beta
        self.in_proj = PackedProjection(d_model, widths)
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
            activation(beta, "sigmoid", out_dtype=torch.float32),  # [B, T, H]
            initial_state=None if state is None else state["memory"],
        )

        return self.out_proj(merge_heads(self.norm(o))), {"memory": memory, "conv": conv}
