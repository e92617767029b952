"""Chunked torch form of `causal_attention`: linear in the length where there is a window.

Blocks of queries, at least a window long, see their own block of keys and the one before it.
Torch's fused attention does a block without log decays and sinks. With them it is written out, and
where there is no window either, memory holds all scores, [B, H, T, P + T].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_BLOCK = 32


def attention_blocks(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,  # [B, P + T, H, K], the past first
    v: Tensor,  # [B, P + T, H, V]
    log_decay: Tensor | None,  # [B, P + T, H]
    sinks: Tensor | None,  # [H]
    window: int | None,
    seen: Tensor | None,  # int64 []: how many of the P past tokens are real, None: all
    scale: float,
) -> Tensor:
    batch, length = q.shape[:2]
    past = k.shape[1] - length
    oldest = -past if seen is None else -seen
    block = length if window is None else max(window, _SMALLEST_BLOCK)
    if length <= 2 * block:  # blocks would cost as much, and copies
        causal = past == 0 and (window is None or window >= length)
        visible = None if causal else _visible(length, past, 0, window, oldest, q.device)
        return _attend(q, k, v, log_decay, sinks, visible, scale)
    missing = -length % block
    blocks = (length + missing) // block
    q = F.pad(q, (0, 0, 0, 0, 0, missing)).reshape(batch * blocks, block, *q.shape[2:])
    k, v = (_with_block_before(x, block, block - past, missing) for x in (k, v))
    if log_decay is not None:
        log_decay = _with_block_before(log_decay, block, block - past, missing)
    first = torch.arange(blocks, device=q.device)[:, None, None] * block
    visible = _visible(block, block, first, window, oldest, q.device)  # [N, C, 2C]
    o = _attend(q, k, v, log_decay, sinks, visible.repeat(batch, 1, 1)[:, None], scale)
    return o.reshape(batch, blocks * block, *o.shape[2:])[:, :length]


def _visible(
    queries: int,
    before: int,
    first: Tensor | int,
    window: int | None,
    oldest: Tensor | int,
    device: torch.device,
) -> Tensor:
    """Which of `before` + `queries` keys each query sees; `first`: the token of the first query."""
    query = torch.arange(queries, device=device)[:, None]
    key = torch.arange(-before, queries, device=device)
    visible = (key <= query) & (key + first >= oldest)
    return visible if window is None else visible & (key > query - window)


def _with_block_before(x: Tensor, block: int, left: int, right: int) -> Tensor:
    """[B, P + T, ...] to [B*N, 2C, ...]: each block behind the one before it."""
    padded = F.pad(x, (0, 0) * (x.dim() - 2) + (left, right))
    blocks = padded.reshape(x.shape[0], -1, block, *x.shape[2:])
    return torch.cat((blocks[:, :-1], blocks[:, 1:]), dim=2).flatten(0, 1)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    sinks: Tensor | None,
    visible: Tensor | None,
    scale: float,
) -> Tensor:
    """visible: broadcastable to [B, H, queries, keys]; None: causal."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if log_decay is None and sinks is None:
        causal = visible is None
        o = F.scaled_dot_product_attention(q, k, v, visible, is_causal=causal, scale=scale)
        return o.transpose(1, 2)
    queries, keys = q.shape[2], k.shape[2]
    scores = scale * (q @ k.mT)  # [B, H, queries, keys]
    if log_decay is not None:
        scores = scores + _decay_between(log_decay.mT, queries)
    if visible is None:
        visible = _visible(queries, 0, 0, None, 0, q.device)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        column = sinks[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, column), dim=-1)
    return (scores.softmax(-1)[..., :keys] @ v).transpose(1, 2)


def _decay_between(log_decay: Tensor, queries: int) -> Tensor:
    """From [B, H, before + queries], what decays between each key and each later query.

    Sums from the key on, not differences of sums from the start: no term of a gate's gradient then
    cancels with another.
    """
    before = log_decay.shape[-1] - queries
    earlier, own = log_decay.split((before, queries), dim=-1)
    until_first = F.pad(earlier, (0, 1))[..., 1:].flip(-1).cumsum(-1).flip(-1)
    query = torch.arange(queries, device=log_decay.device)[:, None]
    key = torch.arange(-before, queries, device=log_decay.device)
    since = torch.where(key < query, own[..., None], 0.0).cumsum(-2)
    return F.pad(until_first, (0, queries))[..., None, :] + since
