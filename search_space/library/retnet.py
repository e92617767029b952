"""RetNet's multi-scale retention: every head forgets at its own constant rate.

Sun et al., "Retentive Network", 2023 (arXiv 2307.08621), equations 6 to 8.

    S_t = gamma_h S_{t-1} + k_t v_t^T     gamma_h = 1 - 2^(-5-h)
    o_t = S_t^T q_t                       q and k rotated by their position
    y_t = W_o (swish(W_g x_t) * norm_h(o_t))

Values are twice as wide as keys, and each head's output is normalised by itself: heads with a slow
decay sum up more tokens and would drown the others. The norm per head is an RMS norm, as in the
authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linearch.kernels import chunk_decay, rotary
from linearch.search_space.layers import GatedRMSNorm, merge_heads, split_heads


class Mixer(nn.Module):
    log_decay: Tensor

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.widths = [2 * d_model, 2 * d_model, 2 * d_model]  # q and k, v, gate
        self.in_proj = nn.Linear(d_model, sum(self.widths), bias=False)
        self.norm = GatedRMSNorm(2 * d_model // n_heads)
        self.out_proj = nn.Linear(2 * d_model, d_model, bias=False)
        gamma = 1 - 2.0 ** (-5 - torch.arange(n_heads, dtype=torch.float64))
        self.register_buffer("log_decay", gamma.log().float(), persistent=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        qk, v, gate = self.in_proj(x).split(self.widths, dim=-1)
        position = x.new_zeros((), dtype=torch.int64) if state is None else state["position"]
        q, k = rotary(split_heads(qk, 2 * self.n_heads), position).chunk(2, dim=2)  # [B, T, H, K]

        o, memory = chunk_decay(
            q,
            k,
            split_heads(v, self.n_heads),  # [B, T, H, 2K]
            self.log_decay,
            initial_state=None if state is None else state["memory"],
        )

        y = self.out_proj(merge_heads(self.norm(o, split_heads(gate, self.n_heads))))
        return y, {"memory": memory, "position": position + x.shape[1]}
