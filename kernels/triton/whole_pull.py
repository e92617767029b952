"""All gradients of chunk_decay in one pass from the end, where a program can hold a whole state.

A program goes through a segment of a sequence, chunk by chunk, and holds D, the gradient of the
state after a chunk; the states S before chunks were kept by the forward pass. With w(t, s) the
decay between two tokens and G its log summed from the chunk's start (see pull.py, whose formulas
these are, and sweep.py, which this replaces for dv):
    dq_t = sum_{s <= t} w (do_t . v_s) k_s + 2^(G_t) S do_t
    dk_s = sum_{t >= s} w (do_t . v_s) q_t + 2^(G_C - G_s) D v_s
    dv_s = sum_{t >= s} w (q_t . k_s) do_t + 2^(G_C - G_s) D^T k_s
    D    = 2^(G_C) D + sum_t 2^(G_t) q_t do_t^T
Each operand is read once and D never leaves the registers: 8 tensors of the inputs' size are moved
where a sweep and a pull move 16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import load_tile, not_hoisted, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks", "segments", "segment_chunks"])
def whole_pull_kernel(
    q_ptr, k_ptr, v_ptr, do_ptr, sums_ptr, saved_ptr, start_ptr,
    dq_ptr, dk_ptr, dv_ptr, dg_ptr, final_ptr,
    scale, start_scale, final_scale, T, H, K, V, chunks, segments, segment_chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, do_b, do_t, do_h, sums_b, sums_h,
    start_v, start_k,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    GATE: tl.constexpr,
    GATE_GRAD: tl.constexpr,
    HAS_START: tl.constexpr,
    FINAL: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """GATE 0 none, 1 a head's. start: D after each segment; final: D before a whole sequence."""
    pid = tl.program_id(0)
    segment = pid % segments
    bh = (pid // segments).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = v_ptr.dtype.element_ty
    keys = tl.arange(0, BK)
    values = tl.arange(0, BV)
    done = segment * segment_chunks
    turns = tl.minimum(segment_chunks, chunks - done)
    chunk = (chunks - 1 - done).to(tl.int64)
    first = chunk * C
    left = T - first.to(tl.int32)
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    v_at = v_ptr + b * v_b + h * v_h + first * v_t
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    sums_at = sums_ptr + b * sums_b + h * sums_h + first
    saved_at = saved_ptr + (bh * chunks + chunk) * V * K
    token = (b * T + first) * H + h  # of [B, T, H]
    dq_at = dq_ptr + token * K
    dk_at = dk_ptr + token * K
    dv_at = dv_ptr + token * V
    dg_at = dg_ptr + token
    place = values[:, None] * start_v + keys[None, :] * start_k
    inside = (values[:, None] < V) & (keys[None, :] < K)
    if HAS_START:
        at = (bh * segments + segment) * K * V
        dstate = tl.load(start_ptr + at + place, mask=inside, other=0.0) * start_scale
    else:
        dstate = tl.zeros((BV, BK), dtype=tl.float32)

    for _ in range(turns):
        rows = not_hoisted(tl.arange(0, C), left)
        v = load_tile(v_at, rows, values, v_t, left, V, EVEN_V)
        do = load_tile(do_at, rows, values, do_t, left, V, EVEN_V)
        q = load_tile(q_at, rows, keys, q_t, left, K, EVEN_K)
        k = load_tile(k_at, rows, keys, k_t, left, K, EVEN_K)
        state = load_tile(saved_at, values, keys, K, V, K, EVEN_K)
        dq = product(do, state, PRECISION)
        by_reader = product(do, tl.trans(v), PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            dq *= power_of_two(summed.to(tl.float32))[:, None]
            by_reader *= _decays(summed, rows[:, None] > rows[None, :], False)
            dq += product(by_reader.to(dtype), k, PRECISION)
            if GATE_GRAD:
                up = tl.sum(dq * _again(q_at, rows, keys, q_t, left, K, EVEN_K), 1)
            by_writer = product(v, tl.trans(do), PRECISION)
            own = tl.where(rows[:, None] == rows[None, :], by_writer, 0.0).to(dtype)
            dq += product(own, k, PRECISION)
        else:
            by_reader = tl.where(rows[:, None] >= rows[None, :], by_reader, 0.0)
            dq += product(by_reader.to(dtype), k, PRECISION)
        store_tile(dq_at, dq * scale, rows, keys, H * K, left, K, EVEN_K)

        dk = product(v, dstate.to(dtype), PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            total = tl.load(sums_at + (C - 1))
            by_writer *= _decays(summed, rows[:, None] < rows[None, :], True)
            dk *= power_of_two((total - summed).to(tl.float32))[:, None]
            near = product(by_writer.to(dtype), q, PRECISION)
            if GATE_GRAD:
                again = _again(k_at, rows, keys, k_t, left, K, EVEN_K)
                down = tl.sum(dk * again, 1)
                up -= tl.sum(near * again, 1)
            dk += near
            dk += product(own, q, PRECISION)
        else:
            by_writer = product(v, tl.trans(do), PRECISION)
            by_writer = tl.where(rows[:, None] <= rows[None, :], by_writer, 0.0)
            dk += product(by_writer.to(dtype), q, PRECISION)
        store_tile(dk_at, dk * scale, rows, keys, H * K, left, K, EVEN_K)

        scores = product(k, tl.trans(q), PRECISION)
        dv = product(k, tl.trans(dstate.to(dtype)), PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            total = tl.load(sums_at + (C - 1))
            scores *= _decays(summed, rows[:, None] <= rows[None, :], True)
            dv *= power_of_two((total - summed).to(tl.float32))[:, None]
        else:
            scores = tl.where(rows[:, None] <= rows[None, :], scores, 0.0)
        dv += product(scores.to(dtype), do, PRECISION)
        store_tile(dv_at, dv * scale, rows, values, H * V, left, V, EVEN_V)

        if GATE == 1:
            summed = tl.load(sums_at + rows)
            whole = power_of_two(tl.load(sums_at + (C - 1)).to(tl.float32))
            if GATE_GRAD:
                again = _again(saved_at, values, keys, K, V, K, EVEN_K)
                over = tl.sum(tl.sum(again.to(tl.float32) * dstate, 0), 0) * whole
                # Not the sum that includes a token less the token: that would round to its size.
                before = tl.sum(tl.where(rows[:, None] < rows[None, :], down[:, None], 0.0), 0)
                dg = tl.cumsum(up, 0, reverse=True) + before + over
                tl.store(dg_at + rows * H, dg * scale, mask=rows < left)
            again = _again(do_at, rows, values, do_t, left, V, EVEN_V)
            written = (again * power_of_two(summed.to(tl.float32))[:, None]).to(dtype)
            dstate *= whole
        else:
            written = do
        dstate += product(tl.trans(written), q, PRECISION)
        q_at -= C * q_t
        k_at -= C * k_t
        v_at -= C * v_t
        do_at -= C * do_t
        sums_at -= C
        saved_at -= V * K
        dq_at -= C * H * K
        dk_at -= C * H * K
        dv_at -= C * H * V
        dg_at -= C * H
        left += C
    if FINAL:
        tl.store(final_ptr + bh * K * V + place, dstate * final_scale, mask=inside)


@triton.jit
def _decays(summed, mask, REVERSE: tl.constexpr):
    """2^(G_t - G_s), or the other way round, where the mask is; else 0."""
    between = (summed[:, None] - summed[None, :]).to(tl.float32)
    if REVERSE:
        between = -between
    return power_of_two(tl.where(mask, between, float("-inf")))


@triton.jit
def _again(base, rows, columns, stride, rows_left, width, EVEN: tl.constexpr):
    """load_tile of what products have read already, to be used by element: a load of its own, so
    that the first stays in shared memory alone and this one in registers for a moment.
    """
    mask = rows[:, None] < rows_left
    if not EVEN:
        mask = mask & (columns[None, :] < width)
    at = base + rows[:, None] * stride + columns[None, :]
    return tl.load(at, mask=mask, other=0.0, cache_modifier=".ca")
