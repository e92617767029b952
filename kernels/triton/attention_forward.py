"""causal_attention's forward kernel: a program has a block of queries and goes through its keys.

Softmax without its matrix (arXiv 2205.14135, 2307.08691): the highest score so far, the sum of
weights relative to it and the weighted values are kept, and rescaled where a higher score comes. A
sink is where they begin. Keys outside a window are never read: before the first `start`, masked to
`edge` (some queries see them no more), unmasked to `diagonal`, masked to `end`.

Log decays come summed from the sequence's start in float64. The decay between two tokens is the
difference of their sums, each less that of the block's first token and in float32: what a long
sequence has summed before costs no accuracy. Float32 inputs have the rest in a second float32, and
so the difference to a rounding of itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import LOG2_E, load_tile, not_hoisted, power_of_two, product, store_tile

_LOWEST_SCORE = tl.constexpr(-1e30)  # finite: its difference to itself is 0


@triton.jit
def keys_of(first, T, window, BM: tl.constexpr, BN: tl.constexpr):
    """start, edge, diagonal and end of what the queries from `first` see."""
    start = tl.maximum(first - window + 1, 0) // BN * BN
    diagonal = first // BN * BN
    edge = tl.minimum(tl.cdiv(tl.maximum(first + BM - window, 0), BN) * BN, diagonal)
    return start, edge, diagonal, tl.minimum(first + BM, T)


@triton.jit
def sums_from(origin, sums_at, rows, rows_left):
    """Summed log decays to base 2, less those up to the token `origin`: float32, and the rest."""
    sums = tl.load(sums_at + rows, mask=rows < rows_left, other=0.0)
    sums = (sums - tl.load(sums_at + origin)) * LOG2_E
    high = sums.to(tl.float32)
    return high, (sums - high.to(tl.float64)).to(tl.float32)


@triton.jit(do_not_specialize=["T", "H", "window"])
def attend_kernel(
    q_ptr, k_ptr, v_ptr, sums_ptr, sinks_ptr, o_ptr, lse_ptr,
    scale, T, H, K, V, window,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    EXACT: tl.constexpr,
    SINKS: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """o [B, T, H, V] and the logarithm to base 2 of a query's weights' sum, lse [B, H, T]."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(T, BM)
    first = (blocks - 1 - pid % blocks) * BM  # those with most keys begin first
    bh = (pid // blocks).to(tl.int64)
    b = bh // H
    h = bh % H
    rows = tl.arange(0, BM)
    keys = tl.arange(0, BK)
    values = tl.arange(0, BV)
    start, edge, diagonal, end = keys_of(first, T, window, BM, BN)
    q_at = q_ptr + b * q_b + h * q_h + first.to(tl.int64) * q_t
    k_at = k_ptr + b * k_b + h * k_h + start.to(tl.int64) * k_t
    v_at = v_ptr + b * v_b + h * v_h + start.to(tl.int64) * v_t
    sums_at = sums_ptr + bh * T
    q = load_tile(q_at, rows, keys, q_t, T - first, K, EVEN_K)
    if DECAY:
        high_t, low_t = sums_from(first, sums_at, first + rows, T)
    highest = tl.zeros((BM,), dtype=tl.float32) + _LOWEST_SCORE
    total = tl.zeros((BM,), dtype=tl.float32)
    if SINKS:
        highest = tl.maximum(highest, tl.load(sinks_ptr + h) * LOG2_E)
        total += 1.0
    out = tl.zeros((BM, BV), dtype=tl.float32)
    t = first + rows
    for part in tl.static_range(3):
        from_key = start if part == 0 else (edge if part == 1 else diagonal)
        to_key = edge if part == 0 else (diagonal if part == 1 else end)
        for j in range(from_key, to_key, BN):
            columns = not_hoisted(tl.arange(0, BN), T - j)
            k = load_tile(k_at, columns, keys, k_t, T - j, K, EVEN_K)
            v = load_tile(v_at, columns, values, v_t, T - j, V, EVEN_V)
            scores = product(q, tl.trans(k), PRECISION) * (scale * LOG2_E)
            if DECAY:
                high_s, low_s = sums_from(first, sums_at, j + columns, T)
                scores += high_t[:, None] - high_s[None, :]
                if EXACT:
                    scores += low_t[:, None] - low_s[None, :]
            if part != 1:
                s = j + columns
                seen = (s[None, :] <= t[:, None]) & (s[None, :] > t[:, None] - window)
                scores = tl.where(seen, scores, float("-inf"))
            top = tl.maximum(highest, tl.max(scores, 1))
            weights = power_of_two(scores - top[:, None])
            fade = power_of_two(highest - top)
            total = total * fade + tl.sum(weights, 1)
            out = out * fade[:, None] + product(weights.to(v.dtype), v, PRECISION)
            highest = top
            k_at += BN * k_t
            v_at += BN * v_t
    flat = (b * T + first) * H + h
    store_tile(o_ptr + flat * V, out / total[:, None], rows, values, H * V, T - first, V, EVEN_V)
    tl.store(lse_ptr + bh * T + first + rows, highest + tl.log2(total), mask=rows < T - first)
