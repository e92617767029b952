"""`chunk_dplr`'s two passes over a sequence, chunk by chunk: the states, and their gradients.

Programs hold all rows of a state and some of its columns, [BK, BV]. With S the state before a
chunk, asked, given and ends e_0, e_1, e_2 of dplr_factor.py, W, Y and scores of dplr_solve.py:
    R = 2^e_0 S                 c = W R + Y v
    o = scale (asked R + scores_b c + scores_k v)
    S' = 2^e_2 (2^e_1 R + given_b^T c + given_k^T v)
and with D' the gradient of S':
    R' = 2^e_2 D'               dc = scale scores_b^T do + given_b R'
    dv = scale scores_k^T do + given_k R' + Y^T dc
    D = 2^e_0 (2^e_1 R' + scale asked^T do + W^T dc)
The states that are kept are R and R'. As in delta_sweep.py the scores are masked a second time, and
transposed operands are loaded tiles.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import load_tile, not_hoisted, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def forward_kernel(
    asking_ptr, reading_ptr, giving_k_ptr, giving_b_ptr, v_ptr, ends_ptr, y_ptr, scores_k_ptr,
    scores_b_ptr, start_ptr, o_ptr, final_ptr, c_ptr, states_ptr,
    scale, T, H, K, V, chunks, v_b, v_t, v_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_START: tl.constexpr,
    SAVE: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """o, the final state and, to SAVE, c and R of each chunk."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    bh = (pid // parts).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = y_ptr.dtype.element_ty
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    token = b * T * H + h  # of [B, T, H]
    rows_at = token * K  # of [B, T, H, K]
    v_at = v_ptr + b * v_b + h * v_h + i_v * BV
    columns_at = token * V + i_v * BV  # of [B, T, H, V]
    square = bh * chunks * C * C
    ends_at = ends_ptr + bh * chunks * 3 * K + along_k
    states_at = states_ptr + bh * chunks * K * V + i_v * BV
    left = T

    state_place = bh * K * V + along_k[:, None] * V + i_v * BV + along_v[None, :]
    state_mask = (along_k[:, None] < K) & (along_v[None, :] < v_left)
    if HAS_START:
        state = tl.load(start_ptr + state_place, mask=state_mask, other=0.0)
    else:
        state = tl.zeros((BK, BV), dtype=tl.float32)

    for _ in range(chunks):
        rows = not_hoisted(tl.arange(0, C), left)
        reads = rows[:, None] >= rows[None, :]
        state *= power_of_two(tl.load(ends_at, mask=along_k < K, other=0.0))[:, None]
        held = state.to(dtype)
        if SAVE:
            store_tile(states_at, held, along_k, along_v, V, K, v_left, EVEN_V)
        vw = load_tile(reading_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        found = product(vw, held, PRECISION)
        vv = load_tile(v_at, rows, along_v, v_t, left, v_left, EVEN_V).to(dtype)
        vy = load_tile(y_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        found += product(vy, vv, PRECISION)
        found = found.to(dtype)
        if SAVE:
            store_tile(c_ptr + columns_at, found, rows, along_v, H * V, left, v_left, EVEN_V)
        vq = load_tile(asking_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        out = product(vq, held, PRECISION)
        scores_k = load_tile(scores_k_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        out += product(tl.where(reads, scores_k, 0.0), vv, PRECISION)
        scores_b = load_tile(scores_b_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        out += product(tl.where(reads, scores_b, 0.0), found, PRECISION)
        store_tile(o_ptr + columns_at, out * scale, rows, along_v, H * V, left, v_left, EVEN_V)
        state *= power_of_two(tl.load(ends_at + K, mask=along_k < K, other=0.0))[:, None]
        vk = load_tile(giving_k_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        state += product(tl.trans(vk), vv, PRECISION)
        vb = load_tile(giving_b_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        state += product(tl.trans(vb), found, PRECISION)
        state *= power_of_two(tl.load(ends_at + 2 * K, mask=along_k < K, other=0.0))[:, None]
        rows_at += C * H * K
        columns_at += C * H * V
        v_at += C * v_t
        square += C * C
        ends_at += 3 * K
        states_at += K * V
        left -= C
    tl.store(final_ptr + state_place, state, mask=state_mask)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def backward_kernel(
    asking_ptr, reading_ptr, giving_k_ptr, giving_b_ptr, ends_ptr, y_ptr, scores_k_ptr,
    scores_b_ptr, do_ptr, dfinal_ptr, dv_ptr, dc_ptr, dstates_ptr, dstart_ptr,
    scale, T, H, K, V, chunks, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_FINAL: tl.constexpr,
    START: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dv, dc and R' of each chunk."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    bh = (pid // parts).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = y_ptr.dtype.element_ty
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    first = (chunks - 1).to(tl.int64) * C
    token = (b * T + first) * H + h  # of [B, T, H]
    rows_at = token * K  # of [B, T, H, K]
    do_at = do_ptr + b * do_b + h * do_h + first * do_t + i_v * BV
    columns_at = token * V + i_v * BV  # of [B, T, H, V]
    square = (bh * chunks * C + first) * C
    ends_at = ends_ptr + (bh * chunks + chunks - 1) * 3 * K + along_k
    dstates_at = dstates_ptr + (bh * chunks + chunks - 1) * K * V + i_v * BV
    left = T - (chunks - 1) * C

    state_place = bh * K * V + along_k[:, None] * V + i_v * BV + along_v[None, :]
    state_mask = (along_k[:, None] < K) & (along_v[None, :] < v_left)
    if HAS_FINAL:
        dstate = tl.load(dfinal_ptr + state_place, mask=state_mask, other=0.0)
    else:
        dstate = tl.zeros((BK, BV), dtype=tl.float32)

    for _ in range(chunks):
        rows = not_hoisted(tl.arange(0, C), left)
        reads = rows[:, None] >= rows[None, :]
        dstate *= power_of_two(tl.load(ends_at + 2 * K, mask=along_k < K, other=0.0))[:, None]
        held = dstate.to(dtype)
        store_tile(dstates_at, held, along_k, along_v, V, K, v_left, EVEN_V)
        vdo = load_tile(do_at, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        scores_b = load_tile(scores_b_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        scores_b = tl.where(reads, scores_b, 0.0)
        found = product(tl.trans(scores_b), vdo, PRECISION) * scale
        vb = load_tile(giving_b_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        found += product(vb, held, PRECISION)
        found = found.to(dtype)
        store_tile(dc_ptr + columns_at, found, rows, along_v, H * V, left, v_left, EVEN_V)
        scores_k = load_tile(scores_k_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        scores_k = tl.where(reads, scores_k, 0.0)
        given = product(tl.trans(scores_k), vdo, PRECISION) * scale
        vk = load_tile(giving_k_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        given += product(vk, held, PRECISION)
        vy = load_tile(y_ptr + square, rows, tl.arange(0, C), C, C, C, True)
        given += product(tl.trans(vy), found, PRECISION)
        store_tile(dv_ptr + columns_at, given, rows, along_v, H * V, left, v_left, EVEN_V)
        dstate *= power_of_two(tl.load(ends_at + K, mask=along_k < K, other=0.0))[:, None]
        vq = load_tile(asking_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        dstate += product(tl.trans(vq), (vdo * scale).to(dtype), PRECISION)
        vw = load_tile(reading_ptr + rows_at, rows, along_k, H * K, left, K, EVEN_K)
        dstate += product(tl.trans(vw), found, PRECISION)
        dstate *= power_of_two(tl.load(ends_at, mask=along_k < K, other=0.0))[:, None]
        rows_at -= C * H * K
        columns_at -= C * H * V
        do_at -= C * do_t
        square -= C * C
        ends_at -= 3 * K
        dstates_at -= K * V
        left += C
    if START:
        tl.store(dstart_ptr + state_place, dstate, mask=state_mask)
