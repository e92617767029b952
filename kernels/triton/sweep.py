"""The kernel that goes from chunk to chunk: chunk_decay's outputs, and gradients that need a state.

For readers t and writers s <= t (s >= t in a REVERSE sweep), w(t, s) the decay between them:
    out_t = scale sum_s w(t, s) (a_t . b_s) c_s
    o  = sweep(q, k, v), with the state sum c b^T      dv = sweep(k, q, do), with its gradient
and where nothing decays also dq = sweep(do, v, k) and dk = sweep(v, do, q) reversed.
A program holds the state's tile [BN, BM] and goes through one segment of a sequence; c and out lie
along N, a and b along M, which it sums over. Transposed operands are loaded tiles or the state as a
right operand: `dot(trans(x), y)` of a product x is miscompiled on Hopper by Triton 3.4 to 3.7.0.

GATE is 0 none, 1 a head's, 2 a channel's along M. A head's comes as base-2 log decays summed from
each chunk's start (`sums`). A channel's is in a and b already, factored around each chunk's middle
(gates.py); sequences marked `strong`, for which that would overflow, are left to an EXACT launch on
the unfactored a, b and g, which adds up the gates between each pair of tokens.
SAVE keeps the state each chunk begins with; without OUT only states are made.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    LOG2_E,
    LOWEST_LOG_DECAY,
    load_tile,
    not_hoisted,
    power_of_two,
    product,
    row_of,
    store_tile,
)


@triton.jit(do_not_specialize=["T", "H", "chunks", "segments", "segment_chunks"])
def sweep_kernel(
    a_ptr, b_ptr, c_ptr, sums_ptr, g_ptr, middle_ptr, total_ptr, strong_ptr,
    start_ptr, out_ptr, final_ptr, saved_ptr,
    scale, start_scale, final_scale,
    T, H, M, N, chunks, segments, segment_chunks,
    a_b, a_t, a_h, b_b, b_t, b_h, c_b, c_t, c_h, sums_b, sums_h, out_p, out_b, out_t, out_h,
    state_n, state_m,
    C: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GATE: tl.constexpr,
    REVERSE: tl.constexpr,
    EXACT: tl.constexpr,
    HAS_START: tl.constexpr,
    OUT: tl.constexpr,
    FINAL: tl.constexpr,
    SAVE: tl.constexpr,
    EVEN_M: tl.constexpr,
    EVEN_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    parts_m = tl.cdiv(M, BM)
    parts_n = tl.cdiv(N, BN)
    i_n = pid % parts_n
    i_m = (pid // parts_n) % parts_m
    segment = (pid // (parts_n * parts_m)) % segments
    bh = (pid // (parts_n * parts_m * segments)).to(tl.int64)
    b = bh // H
    h = bh % H
    along_m = tl.arange(0, BM)
    along_n = tl.arange(0, BN)
    m_left = M - i_m * BM
    n_left = N - i_n * BN
    dtype = c_ptr.dtype.element_ty
    done = segment * segment_chunks  # chunks of earlier segments
    turns = tl.minimum(segment_chunks, chunks - done)
    chunk = (chunks - 1 - done if REVERSE else done).to(tl.int64)
    first = chunk * C
    step = -C if REVERSE else C
    left = T - first.to(tl.int32)
    a_at = a_ptr + b * a_b + h * a_h + first * a_t + i_m * BM
    b_at = b_ptr + b * b_b + h * b_h + first * b_t + i_m * BM
    c_at = c_ptr + b * c_b + h * c_h + first * c_t + i_n * BN
    out_at = out_ptr + i_m.to(tl.int64) * out_p + b * out_b + h * out_h + first * out_t + i_n * BN
    sums_at = sums_ptr + b * sums_b + h * sums_h + first
    ends = ((b * chunks + chunk) * H + h) * M + i_m * BM  # of middle and total
    g_at = g_ptr + ((b * T + first) * H + h) * M + i_m * BM
    corner = i_m.to(tl.int64) * BM * state_m + i_n.to(tl.int64) * BN * state_n
    corner += (bh * segments + segment) * M * N
    state_place = along_n[:, None] * state_n + along_m[None, :] * state_m
    state_mask = (along_n[:, None] < n_left) & (along_m[None, :] < m_left)
    saved_at = saved_ptr + (bh * chunks + chunk) * M * N + i_n.to(tl.int64) * BN * M + i_m * BM

    if HAS_START:
        state = tl.load(start_ptr + corner + state_place, mask=state_mask, other=0.0)
        state = state.to(tl.float32) * start_scale
    else:
        state = tl.zeros((BN, BM), dtype=tl.float32)
    if GATE == 2:
        is_strong = tl.load(strong_ptr + bh) != 0
        turns = tl.where(is_strong, turns, 0) if EXACT else tl.where(is_strong, 0, turns)

    for _ in range(turns):
        rows = not_hoisted(tl.arange(0, C), left)
        if REVERSE:
            reads = rows[:, None] <= rows[None, :]
        else:
            reads = rows[:, None] >= rows[None, :]
        if OUT:
            va = load_tile(a_at, rows, along_m, a_t, left, m_left, EVEN_M)
        vb = load_tile(b_at, rows, along_m, b_t, left, m_left, EVEN_M)
        vc = load_tile(c_at, rows, along_n, c_t, left, n_left, EVEN_N)
        if SAVE:
            store_tile(saved_at, state, along_n, along_m, M, n_left, m_left, EVEN_M)
            saved_at += step // C * M * N
        if GATE == 0:
            if OUT:
                scores = tl.where(reads, product(va, tl.trans(vb), PRECISION), 0.0)
                out = product(va, tl.trans(state.to(dtype)), PRECISION)
                out += product(scores.to(dtype), vc, PRECISION)
            state += product(tl.trans(vc), vb, PRECISION)
        elif GATE == 1:
            summed = tl.load(sums_at + tl.arange(0, C))
            total = tl.load(sums_at + (C - 1))
            till_end = power_of_two((total - summed).to(tl.float32))
            from_start = power_of_two(summed.to(tl.float32))
            if OUT:
                between = (summed[:, None] - summed[None, :]).to(tl.float32)
                if REVERSE:
                    between = -between
                scores = product(va, tl.trans(vb), PRECISION)
                scores *= power_of_two(tl.where(reads, between, float("-inf")))
                out = product(va, tl.trans(state.to(dtype)), PRECISION)
                out *= (till_end if REVERSE else from_start)[:, None]
                out += product(scores.to(dtype), vc, PRECISION)
            written = (vc * (from_start if REVERSE else till_end)[:, None]).to(dtype)
            state = state * power_of_two(total.to(tl.float32))
            state += product(tl.trans(written), vb, PRECISION)
            sums_at += step
        else:
            total = tl.load(total_ptr + ends + along_m, mask=along_m < m_left, other=0.0)
            if EXACT:
                g = load_tile(g_at, rows, along_m, H * M, left, m_left, EVEN_M)
                g = tl.maximum(g.to(tl.float32), LOWEST_LOG_DECAY)
                run = tl.zeros((C, BM), dtype=tl.float32)
                till_end = tl.zeros((C, BM), dtype=tl.float32)
                next_g = tl.zeros((BM,), dtype=tl.float32)
                scores = tl.zeros((C, C), dtype=tl.float32)
                for j in range(C):
                    s = j if REVERSE else C - 1 - j
                    here = rows[:, None] == s
                    this_g = row_of(g, rows, s)
                    if REVERSE:
                        run += tl.where(rows[:, None] < s, this_g[None, :], 0.0)
                        weights = tl.where(rows[:, None] < s, tl.exp(run), 0.0)
                    else:
                        run += tl.where(rows[:, None] > s, next_g[None, :], 0.0)
                        weights = tl.where(rows[:, None] > s, tl.exp(run), 0.0)
                        till_end = tl.where(here, row_of(run, rows, C - 1)[None, :], till_end)
                    next_g = this_g
                    if OUT:
                        b_s = row_of(vb, rows, s)
                        weights = tl.where(here, 1.0, weights)
                        column = tl.sum(va.to(tl.float32) * weights * b_s[None, :], 1)
                        scores = tl.where(rows[None, :] == s, column[:, None], scores)
                till_end = tl.exp(run if REVERSE else till_end)
                from_start = power_of_two(tl.cumsum(g * LOG2_E, 0))
                if OUT:
                    asked = (va * (till_end if REVERSE else from_start)).to(dtype)
                    out = product(asked, tl.trans(state.to(dtype)), PRECISION)
                    out += product(scores.to(dtype), vc, PRECISION)
                given = (vb * (from_start if REVERSE else till_end)).to(dtype)
                state = state * power_of_two(total)[None, :]
                state += product(tl.trans(vc), given, PRECISION)
                g_at += step * H * M
            else:
                middle = tl.load(middle_ptr + ends + along_m, mask=along_m < m_left, other=0.0)
                state *= power_of_two(total - middle if REVERSE else middle)[None, :]
                if OUT:
                    scores = tl.where(reads, product(va, tl.trans(vb), PRECISION), 0.0)
                    out = product(va, tl.trans(state.to(dtype)), PRECISION)
                    out += product(scores.to(dtype), vc, PRECISION)
                state += product(tl.trans(vc), vb, PRECISION)
                state *= power_of_two(middle if REVERSE else total - middle)[None, :]
            ends += step // C * H * M
        if OUT:
            store_tile(out_at, out * scale, rows, along_n, out_t, left, n_left, EVEN_N)
            a_at += step * a_t
            out_at += step * out_t
        b_at += step * b_t
        c_at += step * c_t
        left -= step

    if FINAL:  # noqa: SIM102 (one condition is the compiler's, the other the program's)
        if turns > 0:
            tl.store(final_ptr + corner + state_place, state * final_scale, mask=state_mask)


@triton.jit(do_not_specialize=["H", "chunks", "segments", "segment_chunks"])
def join_segments_kernel(
    local_ptr, start_ptr, starts_ptr, final_ptr, sums_ptr, total_ptr,
    start_scale, final_scale,
    H, M, N, chunks, segments, segment_chunks, sums_b, sums_h, state_n, state_m,
    C: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GATE: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_START: tl.constexpr,
    FINAL: tl.constexpr,
    AT_ONCE: tl.constexpr,
):  # fmt: skip
    """From what each segment adds to the state, [B, H, segments, N, M], its first state."""
    pid = tl.program_id(0)
    parts_m = tl.cdiv(M, BM)
    parts_n = tl.cdiv(N, BN)
    along_n = (pid % parts_n) * BN + tl.arange(0, BN)
    along_m = ((pid // parts_n) % parts_m) * BM + tl.arange(0, BM)
    bh = (pid // (parts_n * parts_m)).to(tl.int64)
    b = bh // H
    h = bh % H
    mask = (along_n[:, None] < N) & (along_m[None, :] < M)
    outside = bh * M * N + along_n[:, None] * state_n + along_m[None, :] * state_m
    if HAS_START:
        state = tl.load(start_ptr + outside, mask=mask, other=0.0).to(tl.float32) * start_scale
    else:
        state = tl.zeros((BN, BM), dtype=tl.float32)
    place = bh * segments * M * N + along_n[:, None] * M + along_m[None, :]
    for segment in range(segments):
        tl.store(starts_ptr + place, state, mask=mask)
        done = segment * segment_chunks
        decay = tl.zeros((BM,), dtype=tl.float32)
        for i in range(done, tl.minimum(done + segment_chunks, chunks), AT_ONCE):
            chunk = i + tl.arange(0, AT_ONCE)
            inside = chunk < tl.minimum(done + segment_chunks, chunks)
            if REVERSE:
                chunk = chunks - 1 - chunk
            if GATE == 1:
                ends = sums_ptr + b * sums_b + h * sums_h + chunk * C + (C - 1)
                decay += tl.sum(tl.load(ends, mask=inside, other=0.0).to(tl.float32), 0)
            if GATE == 2:
                ends = total_ptr + ((b * chunks + chunk[:, None]) * H + h) * M + along_m[None, :]
                mask_m = inside[:, None] & (along_m[None, :] < M)
                decay += tl.sum(tl.load(ends, mask=mask_m, other=0.0), 0)
        local = tl.load(local_ptr + place, mask=mask, other=0.0)
        state = state * power_of_two(decay)[None, :] + local
        place += M * N
    if FINAL:
        tl.store(final_ptr + outside, state * final_scale, mask=mask)
