"""Gradients of q, k and the gates where something decays: a program for each chunk and key tile.

The states S that chunks begin with and the gradients D of those they end with were kept by two
sweeps, so chunks need not wait for each other. With B = do v^T, masked, and w the decays,
    dq_t = sum_s w B_ts k_s + 2^(G_t) S do_t           dk_s = sum_t w B_ts q_t + 2^(G_C - G_s) D v_s
A gate's gradient at r sums the pairs s < r <= t of writers and readers: with `up` the pairs that
end at t (less those inside the chunk that begin there), `down` the pairs that begin at s and leave
the chunk, and X = 2^(G_C) <S, D> those that pass over it,
    dg_r = sum_{t >= r} up_t + sum_{s < r} down_s + X
A token's pair with itself, which no gate divides, is never left in such a sum, or cancels exactly:
where all gates are strong, its rounding would be larger than the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    LOG2_E,
    LOWEST_LOG_DECAY,
    load_tile,
    passed_on,
    power_of_two,
    product,
    row_of,
    store_tile,
)


@triton.jit(do_not_specialize=["T", "H", "chunks", "dg_p"])
def pull_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, sums_ptr, g_ptr, middle_ptr, total_ptr, strong_ptr,
    saved_ptr, dsaved_ptr, dq_ptr, dk_ptr, dg_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, do_b, do_t, do_h, sums_b, sums_h, dg_p,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    GATE: tl.constexpr,
    EXACT: tl.constexpr,
    GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """GATE 1 a head's, 2 a channel's; then q and k are factored (gates.py), but if EXACT.

    dq, dk and a channel's dg are contiguous; a head's dg is [key tiles, B, T, H], to be summed.
    """
    pid = tl.program_id(0)
    blocks = tl.cdiv(K, BK)
    block = pid % blocks
    # Heads before chunks: a token's heads are neighbours in memory.
    h = ((pid // blocks) % H).to(tl.int64)
    chunk = ((pid // (blocks * H)) % chunks).to(tl.int64)
    b = (pid // (blocks * H * chunks)).to(tl.int64)
    bh = b * H + h
    if GATE == 2:
        is_strong = tl.load(strong_ptr + bh) != 0
        if is_strong != EXACT:
            return
    dtype = v_ptr.dtype.element_ty
    first = chunk * C
    left = T - first.to(tl.int32)
    k_left = K - block * BK
    rows = tl.arange(0, C)
    keys = tl.arange(0, BK)
    values = tl.arange(0, BV)
    v_at = v_ptr + b * v_b + first * v_t + h * v_h
    do_at = do_ptr + b * do_b + first * do_t + h * do_h
    state_at = (bh * chunks + chunk) * V * K + block * BK
    reads = rows[:, None] >= rows[None, :]
    is_read = rows[:, None] <= rows[None, :]
    dq = tl.zeros((C, BK), dtype=tl.float32)
    dk = tl.zeros((C, BK), dtype=tl.float32)
    by_reader = tl.zeros((C, C), dtype=tl.float32)
    by_writer = tl.zeros((C, C), dtype=tl.float32)
    over = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v = load_tile(v_at + begin, rows, values, v_t, left, V - begin, EVEN_V)
        do = load_tile(do_at + begin, rows, values, do_t, left, V - begin, EVEN_V)
        at = state_at + begin * K
        state = load_tile(saved_ptr + at, values, keys, K, V - begin, k_left, EVEN_K)
        dstate = load_tile(dsaved_ptr + at, values, keys, K, V - begin, k_left, EVEN_K)
        by_reader += product(do, tl.trans(v), PRECISION)
        by_writer += product(v, tl.trans(do), PRECISION)
        dq += product(do, state, PRECISION)
        dk += product(v, dstate, PRECISION)
        if GATE_GRAD:
            over += tl.sum(state.to(tl.float32) * dstate.to(tl.float32), 0)

    q_at = q_ptr + b * q_b + first * q_t + h * q_h + block * BK
    k_at = k_ptr + b * k_b + first * k_t + h * k_h + block * BK
    q = load_tile(q_at, rows, keys, q_t, left, k_left, EVEN_K)
    k = load_tile(k_at, rows, keys, k_t, left, k_left, EVEN_K)
    if GATE == 1:
        sums_at = sums_ptr + b * sums_b + h * sums_h + first
        summed = tl.load(sums_at + rows)
        total = tl.load(sums_at + (C - 1))
        between = (summed[:, None] - summed[None, :]).to(tl.float32)
        by_reader *= power_of_two(tl.where(reads, between, float("-inf")))
        by_writer *= power_of_two(tl.where(is_read, -between, float("-inf")))
        dq *= power_of_two(summed.to(tl.float32))[:, None]
        dk *= power_of_two((total - summed).to(tl.float32))[:, None]
        if GATE_GRAD:
            up = tl.sum(dq * q, 1)
            down = tl.sum(dk * k, 1)
            pairs = by_reader * product(q, tl.trans(k), PRECISION)
            pairs = tl.where(rows[:, None] > rows[None, :], pairs, 0.0)
            up += tl.sum(pairs, 1)
            up -= tl.sum(pairs, 0)
        dq += product(by_reader.to(dtype), k, PRECISION)
        dk += product(by_writer.to(dtype), q, PRECISION)
        if GATE_GRAD:
            across = tl.sum(over, 0) * power_of_two(total.to(tl.float32))
            # Not the sum that includes a token less the token: that would round to its size.
            before = tl.sum(tl.where(rows[:, None] < rows[None, :], down[:, None], 0.0), 0)
            dg = tl.cumsum(up, 0, reverse=True) + before + across
            dg_at = dg_ptr + block.to(tl.int64) * dg_p + (b * T + first) * H + h
            tl.store(dg_at + rows * H, dg * scale, mask=rows < left)
    else:
        flat = ((b * T + first) * H + h) * K + block * BK
        ends = ((b * chunks + chunk) * H + h) * K + block * BK + keys
        total = tl.load(total_ptr + ends, mask=keys < k_left, other=0.0)
        by_reader = tl.where(reads, by_reader, 0.0)
        if EXACT:
            g = load_tile(g_ptr + flat, rows, keys, H * K, left, k_left, EVEN_K)
            g = tl.maximum(g.to(tl.float32), LOWEST_LOG_DECAY)
            run = tl.zeros((C, BK), dtype=tl.float32)
            till_end = tl.zeros((C, BK), dtype=tl.float32)
            next_g = tl.zeros((BK,), dtype=tl.float32)
            near_q = tl.zeros((C, BK), dtype=tl.float32)
            near_k = tl.zeros((C, BK), dtype=tl.float32)
            for j in range(C):
                s = C - 1 - j
                here = rows[:, None] == s
                run += tl.where(rows[:, None] > s, next_g[None, :], 0.0)
                next_g = row_of(g, rows, s)
                till_end = tl.where(here, row_of(run, rows, C - 1)[None, :], till_end)
                column = tl.sum(tl.where(rows[None, :] == s, by_reader, 0.0), 1)
                weights = tl.where(rows[:, None] > s, tl.exp(run), 0.0) * column[:, None]
                near_q += weights * row_of(k, rows, s)[None, :]
                near_k = tl.where(here, tl.sum(weights * q, 0)[None, :], near_k)
            dq *= power_of_two(tl.cumsum(g * LOG2_E, 0))
            dk *= tl.exp(till_end)
            down = dk * k
            dq += near_q
            up = dq * q - near_k * k
            own = tl.sum(tl.where(rows[:, None] == rows[None, :], by_reader, 0.0), 1)
            dq += own[:, None] * k
            dk += near_k + own[:, None] * q
        else:
            by_writer = tl.where(is_read, by_writer, 0.0)
            middle = tl.load(middle_ptr + ends, mask=keys < k_left, other=0.0)
            dq *= power_of_two(middle)[None, :]
            dq += product(by_reader.to(dtype), k, PRECISION)
            dk *= power_of_two(total - middle)[None, :]
            near_k = product(by_writer.to(dtype), q, PRECISION)
            down = dk * k
            up = dq * q - near_k * k
            dk += near_k
            shifted = load_tile(sums_ptr + flat, rows, keys, H * K, left, k_left, EVEN_K)
            dq *= power_of_two(shifted)
            dk *= power_of_two(-shifted)
        if GATE_GRAD:
            across = over * power_of_two(total)
            dg = passed_on(up, down, rows) + across[None, :]
            store_tile(dg_ptr + flat, dg * scale, rows, keys, H * K, left, k_left, EVEN_K)
    to = ((b * T + first) * H + h) * K + block * BK
    store_tile(dq_ptr + to, dq * scale, rows, keys, H * K, left, k_left, EVEN_K)
    store_tile(dk_ptr + to, dk * scale, rows, keys, H * K, left, k_left, EVEN_K)
