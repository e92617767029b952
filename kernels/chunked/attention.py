"""Chunked torch form of `causal_attention`: linear in the length where there is a window.

Blocks of queries, at least a window long, see their own block of keys and the one before it.
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
    window: int | None,
    seen: Tensor | None,  # int64 []: how many of the P past tokens are real, None: all
    scale: float,
) -> Tensor:
    batch, length = q.shape[:2]
    past = k.shape[1] - length
    oldest = -past if seen is None else -seen
    block = length if window is None else max(window, _SMALLEST_BLOCK)
    if length <= 2 * block:  # blocks would cost as much, and copies
        if past == 0 and (window is None or window >= length):
            return _attend(q, k, v, None, scale)
        return _attend(q, k, v, _visible(length, past, 0, window, oldest, q.device), scale)
    missing = -length % block
    blocks = (length + missing) // block
    q = F.pad(q, (0, 0, 0, 0, 0, missing)).reshape(batch * blocks, block, *q.shape[2:])
    k, v = (_with_block_before(x, block, block - past, missing) for x in (k, v))
    first = torch.arange(blocks, device=q.device)[:, None, None] * block
    visible = _visible(block, block, first, window, oldest, q.device)  # [N, C, 2C]
    o = _attend(q, k, v, visible.repeat(batch, 1, 1)[:, None], scale)
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
    """[B, P + T, H, D] to [B*N, 2C, H, D]: each block behind the one before it."""
    blocks = F.pad(x, (0, 0, 0, 0, left, right)).reshape(x.shape[0], -1, block, *x.shape[2:])
    return torch.cat((blocks[:, :-1], blocks[:, 1:]), dim=2).flatten(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """visible: broadcastable to [B, H, queries, keys]; None: causal."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    causal = visible is None
    o = F.scaled_dot_product_attention(q, k, v, visible, is_causal=causal, scale=scale)
    return o.transpose(1, 2)
