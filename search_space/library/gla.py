"""Gated linear attention: every key channel forgets at a rate that the token chooses.

Yang et al., 2023 (arXiv 2312.06635), section 4.4.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T   a_t = sigmoid(W_2 W_1 x_t + b)^(1/16)
    o_t = S_t^T q_t
    y_t = W_o (swish(W_g x_t) * norm_h(o_t))

The gate passes through 16 channels to save parameters, and its 16th root keeps it near 1, so that
forgetting is slow unless learned. Keys have half the width of values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linearch.kernels import activation, chunk_decay
from linearch.search_space.layers import GatedRMSNorm, PackedProjection, merge_heads, split_heads

GATE_RANK = 16
GATE_ROOT = 16


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        key_width = max(1, d_model // n_heads // 2) * n_heads
        widths = [key_width, key_width, d_model, d_model, GATE_RANK]
        self.in_proj = PackedProjection(d_model, widths)
        self.decay_proj = nn.Linear(GATE_RANK, key_width)
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v, gate, low_rank = self.in_proj(x)
        log_decay = activation(  # [B, T, H*K]
            self.decay_proj(low_rank), "log_sigmoid", rate=1 / GATE_ROOT, out_dtype=torch.float32
        )

        o, memory = chunk_decay(
            split_heads(q, self.n_heads),
            split_heads(k, self.n_heads),
            split_heads(v, self.n_heads),
            split_heads(log_decay, self.n_heads),
            initial_state=None if state is None else state["memory"],
        )

        y = self.norm(o, split_heads(gate, self.n_heads))
        return self.out_proj(merge_heads(y)), {"memory": memory}
