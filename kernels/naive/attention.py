"""Specification of `causal_attention`: o_t = sum_s softmax_s(scale q_t . k_s) v_s, query by query.

s runs over the last `window` tokens up to t, those of the past included.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attention_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,  # [B, P + T, H, K], the past first
    v: Tensor,  # [B, P + T, H, V]
    window: int | None,
    seen: Tensor | None,  # int64 []: how many of the P past tokens are real, None: all
    scale: float,
) -> Tensor:
    length = q.shape[1]
    past = k.shape[1] - length
    outputs = []
    for t in range(length):
        end = past + t + 1
        start = 0 if window is None else max(end - window, 0)
        scores = torch.einsum("bhk,bshk->bhs", scale * q[:, t], k[:, start:end])
        if seen is not None:
            position = torch.arange(start, end, device=q.device)
            scores = scores.masked_fill(position < past - seen, float("-inf"))
        outputs.append(torch.einsum("bhs,bshv->bhv", scores.softmax(-1), v[:, start:end]))
    return torch.stack(outputs, dim=1)
