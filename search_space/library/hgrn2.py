"""HGRN-2: a gated recurrence whose key is what the forget gate leaves open.

Qin et al., 2024 (arXiv 2404.07904); lower bounds after HGRN (arXiv 2311.04823).

    S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T     f_t = l + (1 - l) sigmoid(W_f x_t)
    o_t = S_t^T q_t                               q_t = swish(W_q x_t)

A channel writes exactly as much as it forgets. The lower bound l rises from layer to layer, so that
upper layers remember longer; it is l = layer / n_layers, the value at which the papers' learned
bounds start (a mixer sees one layer, and theirs share a softmax over all).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linearch.kernels import activation, chunk_decay
from linearch.search_space.layers import RMSNorm, merge_heads, split_heads


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.norm = RMSNorm(d_model)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self.bound = layer_idx / n_layers

    def forward(
        self, x: Tensor, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, forget, v = self.in_proj(x).chunk(3, dim=-1)
        k = (1 - self.bound) * torch.sigmoid(-forget.float())  # 1 - f_t
        log_decay = activation(forget, "log_sigmoid", floor=self.bound, out_dtype=torch.float32)

        o, memory = chunk_decay(
            split_heads(F.silu(q), self.n_heads),
            split_heads(k.to(q.dtype), self.n_heads),
            split_heads(v, self.n_heads),
            split_heads(log_decay, self.n_heads),
            initial_state=None if state is None else state["memory"],
        )

        return self.out_proj(self.norm(merge_heads(o))), {"memory": memory}
