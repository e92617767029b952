"""Specification of `causal_attention`, query by query.

    o_t = sum_s p_ts v_s,  p_ts = e^{x_ts} / (e^{sink} + sum_s e^{x_ts}),
    x_ts = scale q_t . k_s + sum_{u=s+1..t} g_u

s runs over the last `window` tokens up to t, those of the past included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,  # [B, P + T, H, K], the past first
    v: Tensor,  # [B, P + T, H, V]
    log_decay: Tensor | None,  # [B, P + T, H]
    sinks: Tensor | None,  # [H]
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
        if log_decay is not None:
            since = log_decay[:, start + 1 : end].flip(1).cumsum(1).flip(1)
            scores = scores + F.pad(since, (0, 0, 0, 1)).mT
        if seen is not None:
            position = torch.arange(start, end, device=q.device)
            scores = scores.masked_fill(position < past - seen, float("-inf"))
        if sinks is not None:
            scores = torch.cat((scores, sinks.expand(scores.shape[:2])[..., None]), dim=-1)
        weights = scores.softmax(-1)[..., : end - start]
        outputs.append(torch.einsum("bhs,bshv->bhv", weights, v[:, start:end]))
    return torch.stack(outputs, dim=1)
