"""dplr_pull.py's work for channels marked strong: decays between each two tokens, on q, k, a and b.

There R and R' are the states S and D' themselves, and what is read of them takes its decay from
the chunk's start, or to its end, afterwards. Rows and sums of gates are those of dplr_pull.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .dplr_pull import parted, row_after
from .strong_gates import any_strong, decays_since
from .tiles import (
    before_here,
    from_here_on,
    load_tile,
    power_of_two,
    product,
    row_of,
    store_tile,
    through_states,
)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def exact_pull_kernel(
    q_ptr, k_ptr, a_ptr, b_ptr, v_ptr, sums_ptr, strong_ptr, c_ptr, do_ptr, dr_ptr,
    states_ptr, dstates_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    dq_ptr, dk_ptr, da_ptr, db_ptr, dg_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h, v_b, v_t, v_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, AT_ONCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """AT_ONCE chunks a program."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    h = ((pid // parts) % H).to(tl.int64)
    runs = tl.cdiv(chunks, AT_ONCE)
    run = (pid // (parts * H)) % runs
    b = (pid // (parts * H * runs)).to(tl.int64)
    blocks = tl.cdiv(K, 64)
    flags_at = strong_ptr + (b * H + h) * chunks * blocks
    if not any_strong(flags_at, run * AT_ONCE, chunks, blocks, AT_ONCE):
        return
    for turn in range(tl.minimum(AT_ONCE, chunks - run * AT_ONCE)):
        chunk = run * AT_ONCE + turn
        if tl.load(flags_at + chunk * blocks + i_k * BK // 64) != 0:
            _pull_chunk(
                q_ptr, k_ptr, a_ptr, b_ptr, v_ptr, sums_ptr, c_ptr, do_ptr, dr_ptr,
                states_ptr, dstates_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
                dq_ptr, dk_ptr, da_ptr, db_ptr, dg_ptr, scale, T, H, K, V, chunks, i_k, b, h, chunk,
                q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
                v_b, v_t, v_h, do_b, do_t, do_h,
                C, BK, BV, GATE_GRAD, EVEN_K, EVEN_V, PRECISION,
            )  # fmt: skip


@triton.jit
def _pull_chunk(
    q_ptr, k_ptr, a_ptr, b_ptr, v_ptr, sums_ptr, c_ptr, do_ptr, dr_ptr,
    states_ptr, dstates_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    dq_ptr, dk_ptr, da_ptr, db_ptr, dg_ptr, scale, T, H, K, V, chunks, i_k, b, h, chunk,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
    v_b, v_t, v_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    at = (b * H + h) * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    next_rows = row_after(rows, C)
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    k_left = K - i_k * BK
    q_at = q_ptr + b * q_b + h * q_h + first * q_t + i_k * BK
    k_at = k_ptr + b * k_b + h * k_h + first * k_t + i_k * BK
    a_at = a_ptr + b * a_b + h * a_h + first * a_t + i_k * BK
    b_at = b_ptr + b * b_b + h * b_h + first * b_t + i_k * BK
    v_at = v_ptr + b * v_b + h * v_h + first * v_t
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    token = (b * T + first) * H + h  # of [B, T, H]
    out_place = token * K + i_k * BK
    states_at = states_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    dstates_at = dstates_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    is_pair = rows[:, None] < C - 1  # in the rows of a

    vq = load_tile(q_at, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
    vk = load_tile(k_at, rows, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    va = load_tile(a_at, next_rows, along_k, a_t, left, k_left, EVEN_K).to(dtype)
    vb = load_tile(b_at, rows, along_k, b_t, left, k_left, EVEN_K).to(dtype)
    square = at * C * C
    sums_at = sums_ptr + at * C * K + i_k * BK
    summed = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K)
    inside = along_k < k_left
    total = tl.load(sums_at + (C - 1) * K + along_k, mask=inside, other=0.0)

    grad = through_states(  # of q
        do_at, rows, do_t, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= scale * power_of_two(summed.to(tl.float32))
    qk, own_k = parted(pairs_qk_ptr + square, rows, C)
    qb, own_b = parted(pairs_qb_ptr + square, rows, C)
    near, up = _of_reader(vq, vk, vb, qk, qb, summed, C)
    up += vq * grad
    grad += near + own_k * vk + own_b * vb
    store_tile(dq_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    dr_at = dr_ptr + token * V
    grad = through_states(  # of a
        dr_at, next_rows, H * V, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= tl.where(is_pair, power_of_two(summed.to(tl.float32)), 1.0)
    ak, own_k = parted(pairs_ak_ptr + square, rows, C)
    ab, own_b = parted(pairs_ab_ptr + square, rows, C)
    near, of_pairs = _of_reader(va, vk, vb, ak, ab, summed, C)
    up += of_pairs + tl.where(is_pair, va * grad, 0.0)
    grad += near + own_k * vk + own_b * vb
    store_tile(da_ptr + out_place, grad, next_rows, along_k, H * K, left, k_left, EVEN_K)

    till_end = power_of_two((total[None, :] - summed).to(tl.float32))
    grad = tl.zeros((C, BK), dtype=tl.float32)  # of k
    passing = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        vv = load_tile(v_at + begin, rows, along_v, v_t, left, v_left, EVEN_V).to(dtype)
        vd = load_tile(dstates_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vv, tl.trans(vd), PRECISION)
        if GATE_GRAD:
            vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
            passing += tl.sum(vs.to(tl.float32) * vd.to(tl.float32), 1)
    grad *= till_end
    down = vk * grad
    qk, own_q = parted(pairs_qk_ptr + square, rows, C)
    ak, own_a = parted(pairs_ak_ptr + square, rows, C)
    near, of_pairs = _of_writer(vk, vq, va, qk, ak, summed, C)
    up -= of_pairs
    grad += near + own_q * vq + own_a * va
    store_tile(dk_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    c_at = c_ptr + token * V
    grad = through_states(  # of b
        c_at, rows, H * V, dstates_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= till_end
    down += vb * grad
    qb, own_q = parted(pairs_qb_ptr + square, rows, C)
    ab, own_a = parted(pairs_ab_ptr + square, rows, C)
    near, of_pairs = _of_writer(vb, vq, va, qb, ab, summed, C)
    up -= of_pairs
    grad += near + own_q * vq + own_a * va
    store_tile(db_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    if GATE_GRAD:
        passing *= power_of_two(total.to(tl.float32))
        dg = from_here_on(up, rows, PRECISION) + before_here(down, rows, PRECISION)
        dg += passing[None, :]
        store_tile(dg_ptr + out_place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def _of_reader(x, k, b, pairs_k, pairs_b, summed, C: tl.constexpr):
    """What earlier writers give to the gradient of x, and of the gates' sums where x stands."""
    rows = tl.arange(0, C)
    near = tl.zeros(x.shape, dtype=tl.float32)
    for s in range(C):
        near += decays_since(summed, rows, s, pairs_k) * row_of(k, rows, s)[None, :]
        near += decays_since(summed, rows, s, pairs_b) * row_of(b, rows, s)[None, :]
    return near, x * near


@triton.jit
def _of_writer(x, q, a, pairs_q, pairs_a, summed, C: tl.constexpr):
    """What later readers give to the gradient of x, and take from that of the gates' sums."""
    rows = tl.arange(0, C)
    near = tl.zeros(x.shape, dtype=tl.float32)
    for s in range(C):
        weights = decays_since(summed, rows, s, pairs_q) * q
        weights += decays_since(summed, rows, s, pairs_a) * a
        near = tl.where(rows[:, None] == s, tl.sum(weights, 0)[None, :], near)
    return near, x * near
