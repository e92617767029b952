"""causal_attention's backward kernels: one over blocks of queries, then one over blocks of keys.

With x the scores, p = 2^(x - lse) the weights and B = do v^T,
    delta_t = o_t . do_t,    D_ts = p_ts (B_ts - delta_t),
    dq_t = scale sum_s D_ts k_s,    dk_s = scale sum_t D_ts q_t,    dv_s = sum_t p_ts do_t
and of the summed log decays sum_s D_ts - sum_t D_st, both over pairs of two tokens: a token's pair
with itself, which nothing decays, may be larger than the gradient by any factor.
The second kernel makes its products transposed, [keys, queries]: `dot(trans(x), y)` of a product x
is miscompiled on Hopper by Triton 3.4 to 3.7.0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_forward import keys_of, sums_from
from .tiles import LOG2_E, load_tile, not_hoisted, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "window"])
def pull_queries_kernel(
    q_ptr, k_ptr, v_ptr, sums_ptr, o_ptr, do_ptr, lse_ptr, delta_ptr, dq_ptr, dsums_ptr,
    scale, T, H, K, V, window,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, o_b, o_t, o_h, do_b, do_t, do_h,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    EXACT: tl.constexpr,
    GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, contiguous, and for the other kernel delta [B, H, T] and the first sum of dsums."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(T, BM)
    first = (blocks - 1 - pid % blocks) * BM
    bh = (pid // blocks).to(tl.int64)
    b = bh // H
    h = bh % H
    rows = tl.arange(0, BM)
    keys = tl.arange(0, BK)
    values = tl.arange(0, BV)
    left = T - first
    start, edge, diagonal, end = keys_of(first, T, window, BM, BN)
    begin = first.to(tl.int64)
    k_at = k_ptr + b * k_b + h * k_h + start.to(tl.int64) * k_t
    v_at = v_ptr + b * v_b + h * v_h + start.to(tl.int64) * v_t
    sums_at = sums_ptr + bh * T
    of_rows = bh * T + first + rows
    q_at = q_ptr + b * q_b + h * q_h + begin * q_t
    o_at = o_ptr + b * o_b + h * o_h + begin * o_t
    do_at = do_ptr + b * do_b + h * do_h + begin * do_t
    q = load_tile(q_at, rows, keys, q_t, left, K, EVEN_K)
    do = load_tile(do_at, rows, values, do_t, left, V, EVEN_V)
    o = load_tile(o_at, rows, values, o_t, left, V, EVEN_V)
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(delta_ptr + of_rows, delta, mask=rows < left)
    lse = tl.load(lse_ptr + of_rows, mask=rows < left, other=float("inf"))
    if DECAY:
        high_t, low_t = sums_from(first, sums_at, first + rows, T)
        if not EXACT:
            lse -= high_t
    dq = tl.zeros((BM, BK), dtype=tl.float32)
    by_query = tl.zeros((BM,), dtype=tl.float32)
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
                if EXACT:
                    scores += low_t[:, None] - low_s[None, :]
                    scores += high_t[:, None] - high_s[None, :]
                else:
                    scores -= high_s[None, :]
            s = j + columns
            if part != 1:
                seen = (s[None, :] <= t[:, None]) & (s[None, :] > t[:, None] - window)
                scores = tl.where(seen, scores, float("-inf"))
            weights = power_of_two(scores - lse[:, None])
            moved = weights * (product(do, tl.trans(v), PRECISION) - delta[:, None])
            if GATE_GRAD:
                by_query += tl.sum(
                    tl.where(s[None, :] < t[:, None], moved, 0.0) if part == 2 else moved, 1
                )
            dq += product(moved.to(k.dtype), k, PRECISION)
            k_at += BN * k_t
            v_at += BN * v_t
    flat = (b * T + first) * H + h
    store_tile(dq_ptr + flat * K, dq * scale, rows, keys, H * K, left, K, EVEN_K)
    if GATE_GRAD:
        tl.store(dsums_ptr + of_rows, by_query, mask=rows < left)


@triton.jit(do_not_specialize=["T", "H", "window"])
def pull_keys_kernel(
    q_ptr, k_ptr, v_ptr, sums_ptr, do_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, dsums_ptr,
    scale, T, H, K, V, window,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, do_b, do_t, do_h,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    EXACT: tl.constexpr,
    GATE_GRAD: tl.constexpr,
    OF_K: tl.constexpr,
    OF_V: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dk (OF_K) and dv (OF_V), contiguous; with dk, dsums less its second sum."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(T, BN)
    first = (pid % blocks) * BN
    bh = (pid // blocks).to(tl.int64)
    b = bh // H
    h = bh % H
    columns = tl.arange(0, BN)
    keys = tl.arange(0, BK)
    values = tl.arange(0, BV)
    left = T - first
    # Queries: the first that see these keys, from where all come after them, to where some see
    # them no more, to where none does.
    end = tl.minimum(first + BN - 1 + window, T)
    start = first // BM * BM
    after = tl.minimum(tl.cdiv(first + BN - 1, BM) * BM, end)
    edge = tl.maximum(tl.minimum((first + window) // BM * BM, end), after)
    begin = start.to(tl.int64)
    q_at = q_ptr + b * q_b + h * q_h + begin * q_t
    do_at = do_ptr + b * do_b + h * do_h + begin * do_t
    sums_at = sums_ptr + bh * T
    k_at = k_ptr + b * k_b + h * k_h + first.to(tl.int64) * k_t
    v_at = v_ptr + b * v_b + h * v_h + first.to(tl.int64) * v_t
    k = load_tile(k_at, columns, keys, k_t, left, K, EVEN_K)
    if OF_K:
        v = load_tile(v_at, columns, values, v_t, left, V, EVEN_V)
    if DECAY:
        high_s, low_s = sums_from(first, sums_at, first + columns, T)
    dk = tl.zeros((BN, BK), dtype=tl.float32)
    dv = tl.zeros((BN, BV), dtype=tl.float32)
    by_key = tl.zeros((BN,), dtype=tl.float32)
    s = first + columns
    for part in tl.static_range(3):
        from_query = start if part == 0 else (after if part == 1 else edge)
        to_query = after if part == 0 else (edge if part == 1 else end)
        for i in range(from_query, to_query, BM):
            rows = not_hoisted(tl.arange(0, BM), T - i)
            q = load_tile(q_at, rows, keys, q_t, T - i, K, EVEN_K)
            do = load_tile(do_at, rows, values, do_t, T - i, V, EVEN_V)
            # Infinite after the last token, whose weights are then 0.
            lse = tl.load(lse_ptr + bh * T + i + rows, mask=rows < T - i, other=float("inf"))
            scores = product(k, tl.trans(q), PRECISION) * (scale * LOG2_E)
            if DECAY:
                high_t, low_t = sums_from(first, sums_at, i + rows, T)
                if EXACT:
                    scores += low_t[None, :] - low_s[:, None]
                    scores += high_t[None, :] - high_s[:, None]
                else:
                    scores -= high_s[:, None]
                    lse -= high_t
            t = i + rows
            if part != 1:
                seen = (s[:, None] <= t[None, :]) & (s[:, None] > t[None, :] - window)
                scores = tl.where(seen, scores, float("-inf"))
            weights = power_of_two(scores - lse[None, :])
            if OF_V:
                dv += product(weights.to(do.dtype), do, PRECISION)
            if OF_K:
                delta = tl.load(delta_ptr + bh * T + i + rows, mask=rows < T - i, other=0.0)
                moved = weights * (product(v, tl.trans(do), PRECISION) - delta[None, :])
                if GATE_GRAD:
                    by_key += tl.sum(
                        tl.where(s[:, None] < t[None, :], moved, 0.0) if part == 0 else moved, 1
                    )
                dk += product(moved.to(q.dtype), q, PRECISION)
            q_at += BM * q_t
            do_at += BM * do_t
    flat = (b * T + first) * H + h
    if OF_V:
        store_tile(dv_ptr + flat * V, dv, columns, values, H * V, left, V, EVEN_V)
    if OF_K:
        store_tile(dk_ptr + flat * K, dk * scale, columns, keys, H * K, left, K, EVEN_K)
        if GATE_GRAD:
            to = dsums_ptr + bh * T + first + columns
            mask = columns < left
            tl.store(to, tl.load(to, mask=mask, other=0.0) - by_key, mask=mask)
