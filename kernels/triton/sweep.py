"""The one kernel of decay-only recurrences: four sweeps of it are chunk_decay and its gradients.

For readers t and writers s <= t (s >= t in a REVERSE sweep), w(t, s) the decay between them:
    out_t = scale sum_s w(t, s) (a_t . b_s) c_s
    o  = sweep(q, k, v)      dq = sweep(do, v, k)              with the state  sum c b^T
    dv = sweep(k, q, do)     dk = sweep(v, do, q) reversed     with its gradient
A program holds the state's tile [BN, BM] and goes from chunk to chunk; c and out lie along N, a and
b along M, which it sums over. Transposed operands are loaded tiles or the state as a right operand:
`dot(trans(x), y)` of a product x is miscompiled on Hopper by Triton 3.4 to 3.7.0.

GATE is 0 none, 1 a head's, 2 a channel's along M, 3 a channel's along N; `sums` holds base-2 log
decays G summed from each chunk's start. A channel's decay is factored around the chunk's middle,
2^(G_t - M) 2^(M - G_s); sequences marked `strong`, for which that would overflow, are left to an
EXACT launch, which adds up the gates between each pair of tokens.
EMIT 1 (of dq, with x = q) and 2 (of dk, with x = k) write what gates.py makes gate gradients of.
SAVE keeps the state before every `every`-th chunk, counted from the last.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    load_last_row,
    load_tile,
    not_hoisted,
    power_of_two,
    product,
    row_of,
    store_tile,
)


@triton.jit(do_not_specialize=["T", "H", "chunks", "every"])
def sweep_kernel(
    a_ptr,
    b_ptr,
    c_ptr,
    x_ptr,
    sums_ptr,
    g_ptr,
    strong_ptr,
    start_ptr,
    out_ptr,
    final_ptr,
    saved_ptr,
    emit_ptr,
    scale,
    start_scale,
    final_scale,
    T,
    H,
    M,
    N,
    chunks,
    every,
    a_b,
    a_t,
    a_h,
    b_b,
    b_t,
    b_h,
    c_b,
    c_t,
    c_h,
    x_b,
    x_t,
    x_h,
    sums_b,
    sums_t,
    sums_h,
    g_b,
    g_t,
    g_h,
    out_p,
    out_b,
    out_t,
    out_h,
    emit_p,
    emit_b,
    emit_t,
    emit_h,
    state_n,
    state_m,
    C: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GATE: tl.constexpr,
    REVERSE: tl.constexpr,
    EXACT: tl.constexpr,
    HAS_START: tl.constexpr,
    FINAL: tl.constexpr,
    SAVE: tl.constexpr,
    EMIT: tl.constexpr,
    EVEN_M: tl.constexpr,
    EVEN_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    pid = tl.program_id(0)
    parts_m = tl.cdiv(M, BM)
    parts_n = tl.cdiv(N, BN)
    i_n = pid % parts_n
    i_m = (pid // parts_n) % parts_m
    bh = (pid // (parts_n * parts_m)).to(tl.int64)
    b = bh // H
    h = bh % H
    along_m = tl.arange(0, BM)
    along_n = tl.arange(0, BN)
    m_left = M - i_m * BM
    n_left = N - i_n * BN
    dtype = c_ptr.dtype.element_ty
    first = (chunks - 1).to(tl.int64) * C if REVERSE else chunks.to(tl.int64) * 0
    step = -C if REVERSE else C
    left = T - (chunks - 1) * C if REVERSE else T
    a_at = a_ptr + b * a_b + h * a_h + first * a_t + i_m * BM
    b_at = b_ptr + b * b_b + h * b_h + first * b_t + i_m * BM
    c_at = c_ptr + b * c_b + h * c_h + first * c_t + i_n * BN
    x_at = x_ptr + b * x_b + h * x_h + first * x_t + i_n * BN
    out_at = out_ptr + i_m.to(tl.int64) * out_p + b * out_b + h * out_h + first * out_t + i_n * BN
    sums_at = sums_ptr + b * sums_b + h * sums_h + first * sums_t
    g_at = g_ptr + b * g_b + h * g_h + first * g_t
    emit_at = emit_ptr + b * emit_b + h * emit_h + first * emit_t
    if GATE == 1:
        emit_at += (i_m * parts_n + i_n).to(tl.int64) * emit_p
    else:
        emit_at += i_m.to(tl.int64) * emit_p + i_n * BN
    if GATE == 2:
        sums_at += i_m * BM
        g_at += i_m * BM
    if GATE == 3:
        sums_at += i_n * BN
        g_at += i_n * BN
    corner = bh * M * N + i_m.to(tl.int64) * BM * state_m + i_n.to(tl.int64) * BN * state_n
    state_place = along_n[:, None] * state_n + along_m[None, :] * state_m
    state_mask = (along_n[:, None] < n_left) & (along_m[None, :] < m_left)

    if HAS_START:
        state = tl.load(start_ptr + corner + state_place, mask=state_mask, other=0.0)
        state = state.to(tl.float32) * start_scale
    else:
        state = tl.zeros((BN, BM), dtype=tl.float32)
    turns = chunks
    if GATE >= 2:
        is_strong = tl.load(strong_ptr + bh) != 0
        turns = tl.where(is_strong, chunks, 0) if EXACT else tl.where(is_strong, 0, chunks)
    anchors = tl.cdiv(chunks, every)
    saved_at = saved_ptr + bh * anchors * M * N + i_n.to(tl.int64) * BN * M + i_m * BM

    for i in range(turns):
        rows = not_hoisted(tl.arange(0, C), left)
        if REVERSE:
            reads = rows[:, None] <= rows[None, :]
        else:
            reads = rows[:, None] >= rows[None, :]
        va = load_tile(a_at, rows, along_m, a_t, left, m_left, EVEN_M)
        vb = load_tile(b_at, rows, along_m, b_t, left, m_left, EVEN_M)
        vc = load_tile(c_at, rows, along_n, c_t, left, n_left, EVEN_N)
        if EMIT != 0:
            vx = load_tile(x_at, rows, along_n, x_t, left, n_left, EVEN_N)
        if SAVE:
            till_last = i if REVERSE else chunks - 1 - i
            place = saved_at + (till_last // every).to(tl.int64) * M * N
            saved_left = tl.where(till_last % every == 0, n_left, 0)
            store_tile(place, state, along_n, along_m, M, saved_left, m_left, EVEN_M)
        if GATE == 0:
            scores = tl.where(reads, product(va, tl.trans(vb), PRECISION), 0.0)
            out = product(va, tl.trans(state.to(dtype)), PRECISION)
            out += product(scores.to(dtype), vc, PRECISION)
            state += product(tl.trans(vc), vb, PRECISION)
        elif GATE == 1:
            summed = tl.load(sums_at + tl.arange(0, C) * sums_t)
            total = tl.load(sums_at + (C - 1) * sums_t)
            till_end = power_of_two((total - summed).to(tl.float32))
            from_start = power_of_two(summed.to(tl.float32))
            between = (summed[:, None] - summed[None, :]).to(tl.float32)
            if REVERSE:
                between = -between
            scores = product(va, tl.trans(vb), PRECISION)
            scores *= power_of_two(tl.where(reads, between, float("-inf")))
            out = product(va, tl.trans(state.to(dtype)), PRECISION)
            out *= (till_end if REVERSE else from_start)[:, None]
            if EMIT != 0:
                emitted = tl.sum(out * vx, 1)
                if EMIT == 1:
                    pairs = scores * product(vx, tl.trans(vc), PRECISION)
                    pairs = tl.where(rows[:, None] > rows[None, :], pairs, 0.0)
                    emitted += tl.sum(pairs, 1)
                    emitted -= tl.sum(pairs, 0)
                tl.store(emit_at + rows * emit_t, emitted * scale, mask=rows < left)
            out += product(scores.to(dtype), vc, PRECISION)
            written = (vc * (from_start if REVERSE else till_end)[:, None]).to(dtype)
            state = state * power_of_two(total.to(tl.float32))
            state += product(tl.trans(written), vb, PRECISION)
        else:
            if GATE == 2:
                summed = load_tile(sums_at, rows, along_m, sums_t, left, m_left, EVEN_M)
                middle = load_last_row(sums_at, along_m, sums_t, left, C // 2 - 1, m_left)
                total = load_last_row(sums_at, along_m, sums_t, left, C - 1, m_left)
            else:
                summed = load_tile(sums_at, rows, along_n, sums_t, left, n_left, EVEN_N)
                middle = load_last_row(sums_at, along_n, sums_t, left, C // 2 - 1, n_left)
                total = load_last_row(sums_at, along_n, sums_t, left, C - 1, n_left)
            if EXACT:
                width: tl.constexpr = BM if GATE == 2 else BN
                if GATE == 2:
                    g = load_tile(g_at, rows, along_m, g_t, left, m_left, EVEN_M)
                    scores = tl.zeros((C, C), dtype=tl.float32)
                else:
                    g = load_tile(g_at, rows, along_n, g_t, left, n_left, EVEN_N)
                    scores = tl.where(reads, product(va, tl.trans(vb), PRECISION), 0.0)
                    near = tl.zeros((C, BN), dtype=tl.float32)
                    by_writer = tl.zeros((C, BN), dtype=tl.float32)
                g = tl.maximum(g.to(tl.float32), -1000.0)
                run = tl.zeros((C, width), dtype=tl.float32)
                till_end = tl.zeros((C, width), dtype=tl.float32)
                next_g = tl.zeros((width,), dtype=tl.float32)
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
                    if GATE == 2:
                        b_s = row_of(vb, rows, s)
                        weights = tl.where(here, 1.0, weights)
                        column = tl.sum(va.to(tl.float32) * weights * b_s[None, :], 1)
                        scores = tl.where(rows[None, :] == s, column[:, None], scores)
                    else:
                        c_s = row_of(vc, rows, s)
                        column = tl.sum(tl.where(rows[None, :] == s, scores, 0.0), 1)
                        weights *= column[:, None]
                        near += weights * c_s[None, :]
                        if EMIT == 1:
                            of_s = c_s * tl.sum(weights * vx, 0)
                            by_writer = tl.where(here, of_s[None, :], by_writer)
                if REVERSE:
                    till_end = run
                from_start = power_of_two(summed)
                till_end = tl.exp(till_end)
                reading = till_end if REVERSE else from_start
                writing = from_start if REVERSE else till_end
                if GATE == 2:
                    asked = (va * reading).to(dtype)
                    out = product(asked, tl.trans(state.to(dtype)), PRECISION)
                    out += product(scores.to(dtype), vc, PRECISION)
                    written = product(tl.trans(vc), (vb * writing).to(dtype), PRECISION)
                    state = state * power_of_two(total)[None, :] + written
                else:
                    out = product(va, tl.trans(state.to(dtype)), PRECISION) * reading
                    if EMIT == 1:
                        emitted = vx * (out + near) - by_writer
                    elif EMIT == 2:
                        emitted = vx * out
                    if EMIT != 0:
                        emitted *= scale
                        store_tile(emit_at, emitted, rows, along_n, emit_t, left, n_left, EVEN_N)
                    own = tl.sum(tl.where(rows[:, None] == rows[None, :], scores, 0.0), 1)
                    out += near + own[:, None] * vc
                    written = (vc * writing).to(dtype)
                    written = product(tl.trans(written), vb, PRECISION)
                    state = state * power_of_two(total)[:, None] + written
            elif GATE == 2:
                summed -= middle[None, :]
                if REVERSE:
                    asked = (va * power_of_two(-summed)).to(dtype)
                    given = (vb * power_of_two(summed)).to(dtype)
                    entering = power_of_two(total - middle)
                    leaving = power_of_two(middle)
                else:
                    asked = (va * power_of_two(summed)).to(dtype)
                    given = (vb * power_of_two(-summed)).to(dtype)
                    entering = power_of_two(middle)
                    leaving = power_of_two(total - middle)
                scores = tl.where(reads, product(asked, tl.trans(given), PRECISION), 0.0)
                out = product(asked, tl.trans((state * entering[None, :]).to(dtype)), PRECISION)
                out += product(scores.to(dtype), vc, PRECISION)
                written = product(tl.trans(vc), given, PRECISION) * leaving[None, :]
                state = state * power_of_two(total)[None, :] + written
            else:
                summed -= middle[None, :]
                if REVERSE:
                    reading = power_of_two(-summed)
                    given = (vc * power_of_two(summed)).to(dtype)
                    entering = power_of_two(total - middle)
                    leaving = power_of_two(middle)
                else:
                    reading = power_of_two(summed)
                    given = (vc * power_of_two(-summed)).to(dtype)
                    entering = power_of_two(middle)
                    leaving = power_of_two(total - middle)
                scores = tl.where(reads, product(va, tl.trans(vb), PRECISION), 0.0).to(dtype)
                out = product(va, tl.trans((state * entering[:, None]).to(dtype)), PRECISION)
                if EMIT == 2:
                    emitted = out * reading * vx * scale
                    store_tile(emit_at, emitted, rows, along_n, emit_t, left, n_left, EVEN_N)
                out += product(scores, given, PRECISION)
                if EMIT == 1:
                    asked = (vx * reading).to(dtype)
                    by_writer = product(vb, tl.trans(va), PRECISION)
                    by_writer = tl.where(rows[:, None] <= rows[None, :], by_writer, 0.0)
                    emitted = asked * out
                    emitted -= given * product(by_writer.to(dtype), asked, PRECISION)
                    emitted *= scale
                    store_tile(emit_at, emitted, rows, along_n, emit_t, left, n_left, EVEN_N)
                out *= reading
                written = product(tl.trans(given), vb, PRECISION) * leaving[:, None]
                state = state * power_of_two(total)[:, None] + written
        store_tile(out_at, out * scale, rows, along_n, out_t, left, n_left, EVEN_N)
        a_at += step * a_t
        b_at += step * b_t
        c_at += step * c_t
        out_at += step * out_t
        if EMIT != 0:
            x_at += step * x_t
            emit_at += step * emit_t
        if GATE != 0:
            sums_at += step * sums_t
        if EXACT:
            g_at += step * g_t
        left -= step

    if FINAL:  # noqa: SIM102 (one condition is the compiler's, the other the program's)
        if turns > 0:
            tl.store(final_ptr + corner + state_place, state * final_scale, mask=state_mask)
