"""Gates of a channel too strong to be factored (gates.py): where they are, and decays one by one.

Solves mark 64 channels of a chunk at a time, and they and pulls leave what is marked to
launches of their own, for which nothing is factored and each pair of tokens has its own decay.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import power_of_two

# Exponents of 2 up to this leave room in float32 for what they multiply.
FARTHEST = tl.constexpr(115.0)
# Chunks that a program of such a launch looks at, since mostly none is marked: with one each,
# programs that had nothing to do took 2 to 3 % of a forward and backward pass of `chunk_dplr`.
CHUNKS_AT_ONCE = 16


@triton.jit
def too_far(apart, middle):
    """Whether factors 2^(G - M), 2^(M - G) or 2^M leave float32's range: G - M [C, D], M [D]."""
    farthest = tl.max(tl.abs(apart), 0)
    return tl.max(tl.maximum(farthest, tl.abs(middle).to(tl.float32)), 0) > FARTHEST


@triton.jit
def any_strong(flags_at, chunk, chunks, blocks, COUNT: tl.constexpr):
    """Whether channels of `chunk`, or of those up to COUNT on from it, are marked."""
    found = 0
    at = chunk + tl.arange(0, COUNT)
    for block in range(blocks):
        found += tl.sum(tl.load(flags_at + at * blocks + block, mask=at < chunks, other=0), 0)
    return found != 0


@triton.jit
def decays_since(summed, rows, s, pairs):
    """w(t, s) pairs[t, s] for t > s, each channel's, [C, BK]."""
    g_s = tl.sum(tl.where(rows[:, None] == s, summed, 0.0), 0)
    since = tl.minimum((summed - g_s[None, :]).to(tl.float32), 0.0)
    of_s = tl.sum(tl.where(rows[None, :] == s, pairs, 0.0).to(tl.float32), 1)[:, None]
    return tl.where(rows[:, None] > s, power_of_two(since), 0.0) * of_s
