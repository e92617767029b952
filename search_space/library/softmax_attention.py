"""Softmax attention with rotary positions: the quadratic reference of every linear mixer.

Vaswani et al., 2017 (arXiv 1706.03762); rotary positions after RoFormer (arXiv 2104.09864).

    o_t = sum_i softmax_i(q_t . k_i / sqrt(K)) v_i    over all i <= t

Its state is every key and value seen. It grows with T, which no candidate's may: this mixer runs as
a reference only. Keys are cached already rotated, since a score depends on the distance alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linearch.kernels import causal_attention, rotary
from linearch.search_space.layers import merge_heads, split_heads


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        D = x.shape[-1]
        qk, v = self.qkv_proj(x).split([2 * D, D], dim=-1)
        position = x.new_zeros((), dtype=torch.int64) if state is None else state["position"]
        q, k = rotary(split_heads(qk, 2 * self.n_heads), position).chunk(2, dim=2)  # [B, T, H, K]
        past = None if state is None else (state["keys"], state["values"], position)

        o, (keys, values, length) = causal_attention(q, k, split_heads(v, self.n_heads), past=past)

        y = self.out_proj(merge_heads(o))
        return y, {"keys": keys, "values": values, "position": length}
