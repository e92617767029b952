"""The delta rule's two passes over a sequence, chunk by chunk: the states, and their gradients.

Programs hold all rows of a state and some of its columns, [BK, BV]. With S the state before a
chunk, Z of delta_solve.py, G the log decays summed from the chunk's start and w those between:
    r = v - e^G p S             c = r - Z (b r)             S' = e^G_end S + (w(end, .) k)^T (b c)
    o = scale (e^G q S + tril(w q k^T) (b c))
and with D' the gradient of S':
    d = scale tril(w q k^T)^T do + w(end, .) k D'           e = d - Z^T (b d)
    dv = b e,  db = e . c       D = e^G_end D' + scale (e^G q)^T do - (e^G p)^T dv
GATE is 0 none, 1 a head's, 2 a channel's: then e^G q, w(end, .) k and e^G p of delta_solve.py come
in the places of q, k and p. The scores tril(w q k^T) are also of delta_solve.py.
With a columns_ptr the state's columns decay too (column_decays.py): S is then 2^H S where tokens
read it, (b c) decays to the chunk's end, and products with Z and the scores go through the decays.
Z is negated and the scores are masked a second time because operands so made stay in registers,
which leaves shared memory for a second program.
Transposed operands are loaded tiles: `dot(trans(x), y)` of a product x is miscompiled on Hopper by
Triton 3.4 to 3.7.0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .column_decays import across, since_start, through_decays, till_end
from .tiles import diagonal_of, load_tile, not_hoisted, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def forward_kernel(
    q_ptr, k_ptr, p_ptr, v_ptr, beta_ptr, sums_ptr, z_ptr, scores_ptr, start_ptr,
    o_ptr, final_ptr, c_ptr, states_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, v_b, v_t, v_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
    OWN_KEY: tl.constexpr, HAS_START: tl.constexpr, SAVE: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr, columns_ptr=None,
):  # fmt: skip
    """o, the final state and, to SAVE, c and the state before each chunk."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    bh = (pid // parts).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = z_ptr.dtype.element_ty
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    q_at = q_ptr + b * q_b + h * q_h
    k_at = k_ptr + b * k_b + h * k_h
    p_at = p_ptr + b * p_b + h * p_h
    v_at = v_ptr + b * v_b + h * v_h + i_v * BV
    token = b * T * H + h  # of [B, T, H]
    beta_at = beta_ptr + token
    o_at = o_ptr + token * V + i_v * BV
    c_at = c_ptr + token * V + i_v * BV
    square = bh * chunks * C
    z_at = z_ptr + square * C
    scores_at = scores_ptr + square * C
    sums_at = sums_ptr + square * (K if GATE == 2 else 1)
    states_at = states_ptr + bh * chunks * K * V + i_v * BV
    if columns_ptr is not None:
        columns_at = columns_ptr + square * V + i_v * BV
    left = T

    state_place = bh * K * V + along_k[:, None] * V + i_v * BV + along_v[None, :]
    state_mask = (along_k[:, None] < K) & (along_v[None, :] < v_left)
    if HAS_START:
        state = tl.load(start_ptr + state_place, mask=state_mask, other=0.0)
    else:
        state = tl.zeros((BK, BV), dtype=tl.float32)

    for _ in range(chunks):
        rows = not_hoisted(tl.arange(0, C), left)
        vq = load_tile(q_at, rows, along_k, q_t, left, K, EVEN_K).to(dtype)
        vk = load_tile(k_at, rows, along_k, k_t, left, K, EVEN_K).to(dtype)
        if OWN_KEY and GATE != 2:
            vp = vk
        else:
            vp = load_tile(p_at, rows, along_k, p_t, left, K, EVEN_K).to(dtype)
        vv = load_tile(v_at, rows, along_v, v_t, left, v_left, EVEN_V)
        vz = load_tile(z_at, rows, tl.arange(0, C), C, C, C, True)
        scores = load_tile(scores_at, rows, tl.arange(0, C), C, C, C, True)
        strength = tl.load(beta_at + rows * H, mask=rows < left, other=0.0)
        held = state.to(dtype)
        if SAVE:
            store_tile(states_at, held, along_k, along_v, V, K, v_left, EVEN_V)
        missing = product(vp, held, PRECISION)
        out = product(vq, held, PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            total = tl.load(sums_at + C - 1)
            from_start = power_of_two(summed.to(tl.float32))
            missing *= from_start[:, None]
            out *= from_start[:, None]
        if columns_ptr is not None:
            decay = since_start(columns_at, along_v, V, v_left, C, EVEN_V)
            missing *= decay
            out *= decay
        missing = vv - missing
        erased = missing * strength[:, None]
        if columns_ptr is None:
            missing += product(-vz, erased.to(dtype), PRECISION)
        else:
            missing -= through_decays(
                vz, erased, columns_at, along_v, V, v_left, C, EVEN_V, False, PRECISION
            )
        if SAVE:
            store_tile(c_at, missing, rows, along_v, H * V, left, v_left, EVEN_V)
        written = missing * strength[:, None]
        scores = tl.where(rows[:, None] >= rows[None, :], scores, 0.0)
        if columns_ptr is None:
            out += product(scores, written.to(dtype), PRECISION)
        else:
            out += diagonal_of(scores, rows) * written + through_decays(
                scores, written, columns_at, along_v, V, v_left, C, EVEN_V, False, PRECISION
            )
            written *= till_end(columns_at, along_v, V, v_left, C, EVEN_V)
            state *= across(columns_at, along_v, V, v_left, C)[None, :]
            columns_at += C * V
        store_tile(o_at, out * scale, rows, along_v, H * V, left, v_left, EVEN_V)
        if GATE == 1:
            written *= power_of_two((total - summed).to(tl.float32))[:, None]
            state *= power_of_two(total.to(tl.float32))
        if GATE == 2:
            total = tl.load(sums_at + (C - 1) * K + along_k, mask=along_k < K, other=0.0)
            state *= power_of_two(total.to(tl.float32))[:, None]
        state += product(tl.trans(vk), written.to(dtype), PRECISION)
        q_at += C * q_t
        k_at += C * k_t
        p_at += C * p_t
        v_at += C * v_t
        beta_at += C * H
        o_at += C * H * V
        c_at += C * H * V
        z_at += C * C
        scores_at += C * C
        sums_at += C * (K if GATE == 2 else 1)
        states_at += K * V
        left -= C
    tl.store(final_ptr + state_place, state, mask=state_mask)


@triton.jit(do_not_specialize=["T", "H", "chunks", "dbeta_part"])
def backward_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, z_ptr, scores_ptr, c_ptr, do_ptr, dfinal_ptr,
    dv_ptr, dbeta_ptr, dstates_ptr, dstart_ptr,
    scale, T, H, K, V, chunks, dbeta_part,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
    OWN_KEY: tl.constexpr, HAS_FINAL: tl.constexpr, START: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr, columns_ptr=None,
):  # fmt: skip
    """dv, db (a part for each BV columns) and the gradient of the state after each chunk."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    bh = (pid // parts).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = z_ptr.dtype.element_ty
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    first = (chunks - 1).to(tl.int64) * C
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    p_at = p_ptr + b * p_b + h * p_h + first * p_t
    do_at = do_ptr + b * do_b + h * do_h + first * do_t + i_v * BV
    token = (b * T + first) * H + h  # of [B, T, H]
    beta_at = beta_ptr + token
    dbeta_at = dbeta_ptr + i_v.to(tl.int64) * dbeta_part + token
    c_at = c_ptr + token * V + i_v * BV
    dv_at = dv_ptr + token * V + i_v * BV
    square = bh * chunks * C + first
    z_at = z_ptr + square * C
    scores_at = scores_ptr + square * C
    sums_at = sums_ptr + square * (K if GATE == 2 else 1)
    dstates_at = dstates_ptr + (bh * chunks + chunks - 1) * K * V + i_v * BV
    if columns_ptr is not None:
        columns_at = columns_ptr + square * V + i_v * BV
    left = T - (chunks - 1) * C

    state_place = bh * K * V + along_k[:, None] * V + i_v * BV + along_v[None, :]
    state_mask = (along_k[:, None] < K) & (along_v[None, :] < v_left)
    if HAS_FINAL:
        dstate = tl.load(dfinal_ptr + state_place, mask=state_mask, other=0.0)
    else:
        dstate = tl.zeros((BK, BV), dtype=tl.float32)

    for _ in range(chunks):
        rows = not_hoisted(tl.arange(0, C), left)
        vq = load_tile(q_at, rows, along_k, q_t, left, K, EVEN_K).to(dtype)
        vk = load_tile(k_at, rows, along_k, k_t, left, K, EVEN_K).to(dtype)
        if OWN_KEY and GATE != 2:
            vp = vk
        else:
            vp = load_tile(p_at, rows, along_k, p_t, left, K, EVEN_K).to(dtype)
        vdo = load_tile(do_at, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vc = load_tile(c_at, rows, along_v, H * V, left, v_left, EVEN_V)
        vz = load_tile(z_at, rows, tl.arange(0, C), C, C, C, True)
        scores = load_tile(scores_at, rows, tl.arange(0, C), C, C, C, True)
        strength = tl.load(beta_at + rows * H, mask=rows < left, other=0.0)
        held = dstate.to(dtype)
        store_tile(dstates_at, held, along_k, along_v, V, K, v_left, EVEN_V)
        dwritten = product(vk, held, PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            total = tl.load(sums_at + C - 1)
            from_start = power_of_two(summed.to(tl.float32))
            dwritten *= power_of_two((total - summed).to(tl.float32))[:, None]
            asked = (vdo * (scale * from_start)[:, None]).to(dtype)
        else:
            asked = (vdo * scale).to(dtype)
        scores = tl.where(rows[:, None] >= rows[None, :], scores, 0.0)
        if columns_ptr is None:
            dwritten += product(tl.trans(scores), vdo, PRECISION) * scale
            erased = (dwritten * strength[:, None]).to(dtype)
            dwritten += product(tl.trans(-vz), erased, PRECISION)
        else:
            decay = since_start(columns_at, along_v, V, v_left, C, EVEN_V)
            asked = (asked * decay).to(dtype)
            dwritten *= till_end(columns_at, along_v, V, v_left, C, EVEN_V)
            dwritten += scale * diagonal_of(scores, rows) * vdo
            dwritten += scale * through_decays(
                scores, vdo, columns_at, along_v, V, v_left, C, EVEN_V, True, PRECISION
            )
            erased = dwritten * strength[:, None]
            dwritten -= through_decays(
                vz, erased, columns_at, along_v, V, v_left, C, EVEN_V, True, PRECISION
            )
        tl.store(dbeta_at + rows * H, tl.sum(dwritten * vc, 1), mask=rows < left)
        dvalue = dwritten * strength[:, None]
        store_tile(dv_at, dvalue, rows, along_v, H * V, left, v_left, EVEN_V)
        if GATE == 1:
            dvalue *= from_start[:, None]
            dstate *= power_of_two(total.to(tl.float32))
        if columns_ptr is not None:
            dvalue *= decay
            dstate *= across(columns_at, along_v, V, v_left, C)[None, :]
            columns_at -= C * V
        if GATE == 2:
            total = tl.load(sums_at + (C - 1) * K + along_k, mask=along_k < K, other=0.0)
            dstate *= power_of_two(total.to(tl.float32))[:, None]
        dstate += product(tl.trans(vq), asked, PRECISION)
        dstate += product(tl.trans(vp), (-dvalue).to(dtype), PRECISION)
        q_at -= C * q_t
        k_at -= C * k_t
        p_at -= C * p_t
        do_at -= C * do_t
        beta_at -= C * H
        dbeta_at -= C * H
        c_at -= C * H * V
        dv_at -= C * H * V
        z_at -= C * C
        scores_at -= C * C
        sums_at -= C * (K if GATE == 2 else 1)
        dstates_at -= K * V
        left += C
    if START:
        tl.store(dstart_ptr + state_place, dstate, mask=state_mask)
