"""`chunk_dplr`'s gradients of q, k, a, b and gates: no chunk waits for another.

With c, dc and Z of the other two files, dr = dc + Z^T dc, S the state before a chunk, D' the
gradient of the one after it, w(t, s) the decay between two tokens, G its log from the start and
E_t = G_{t-1}:
    dq_t = scale (e^G_t S do_t + sum_{s <= t} w(t, s) ((do_t . v_s) k_s + (do_t . c_s) b_s))
    da_t =        e^E_t S dr_t + sum_{s < t}  w(t-1, s) ((dr_t . v_s) k_s + (dr_t . c_s) b_s)
    dk_s = w(end, s) D' v_s + sum of what pairs of s give to q_t and, for t > s, a_t in return
and dk with c for v is db. A gate's gradient is made of pairs as in delta_pull.py.
Token t reads under a what a query of t - 1 would see. So a and dr stand a row earlier here, and
pairs with row t - 1 are those that no gate divides. The last row holds the chunk's first token,
which has no pairs in the chunk and whose e^E is 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .delta_pull import decays_since
from .tiles import load_tile, power_of_two, product, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def pairs_kernel(
    v_ptr, c_ptr, z_ptr, do_ptr, dc_ptr,
    pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    scale, T, H, V, chunks, v_b, v_t, v_h, do_b, do_t, do_h,
    C: tl.constexpr, BV: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """scale do_t . (v_s, c_s) and, a row earlier, dr_t . (v_s, c_s); dr in the place of dc."""
    pid = tl.program_id(0)
    chunk = pid % chunks
    bh = (pid // chunks).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = z_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    along_v = tl.arange(0, BV)
    token = (b * T + first) * H + h  # of [B, T, H]
    v_at = v_ptr + b * v_b + h * v_h + first * v_t
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    vz = load_tile(z_ptr + at * C * C, rows, tl.arange(0, C), C, C, C, True)
    pairs_qk = tl.zeros((C, C), dtype=tl.float32)
    pairs_qb = tl.zeros((C, C), dtype=tl.float32)
    pairs_ak = tl.zeros((C, C), dtype=tl.float32)
    pairs_ab = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        place = token * V + begin
        vv = load_tile(v_at + begin, rows, along_v, v_t, left, v_left, EVEN_V).to(dtype)
        vdo = load_tile(do_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vc = load_tile(c_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V)
        vdc = load_tile(dc_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V)
        vdr = (vdc + product(tl.trans(vz), vdc, PRECISION)).to(dtype)
        store_tile(dc_ptr + place, vdr, rows, along_v, H * V, left, v_left, EVEN_V)
        pairs_qk += product(vdo, tl.trans(vv), PRECISION)
        pairs_qb += product(vdo, tl.trans(vc), PRECISION)
        pairs_ak += product(vdr, tl.trans(vv), PRECISION)
        pairs_ab += product(vdr, tl.trans(vc), PRECISION)
    reads = rows[:, None] >= rows[None, :]
    below = rows[:, None] > rows[None, :]
    place = at * C * C + rows[:, None] * C + rows[None, :]
    tl.store(pairs_qk_ptr + place, tl.where(reads, pairs_qk * scale, 0.0).to(dtype))
    tl.store(pairs_qb_ptr + place, tl.where(reads, pairs_qb * scale, 0.0).to(dtype))
    place = at * C * C + _row_before(rows, C)[:, None] * C + rows[None, :]
    tl.store(pairs_ak_ptr + place, tl.where(below, pairs_ak, 0.0).to(dtype))
    tl.store(pairs_ab_ptr + place, tl.where(below, pairs_ab, 0.0).to(dtype))


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def pull_kernel(
    q_ptr, k_ptr, a_ptr, b_ptr, v_ptr, sums_ptr, strong_ptr, c_ptr, do_ptr, dr_ptr,
    states_ptr, dstates_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    dq_ptr, dk_ptr, da_ptr, db_ptr, dg_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h, v_b, v_t, v_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One after the other, pairs read twice, since few tiles fit into the registers together."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    chunk = (pid // parts) % chunks
    bh = (pid // (parts * chunks)).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    next_rows = _row_after(rows, C)
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
    below = rows[:, None] > rows[None, :]
    is_pair = rows[:, None] < C - 1  # in the rows of a

    vq = load_tile(q_at, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
    vk = load_tile(k_at, rows, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    va = load_tile(a_at, next_rows, along_k, a_t, left, k_left, EVEN_K).to(dtype)
    vb = load_tile(b_at, rows, along_k, b_t, left, k_left, EVEN_K).to(dtype)
    square = at * C * C
    sums_at = sums_ptr + at * C * K + i_k * BK
    summed = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K)
    inside = along_k < k_left
    middle = tl.floor(tl.load(sums_at + (C // 2 - 1) * K + along_k, mask=inside, other=0.0))
    total = tl.load(sums_at + (C - 1) * K + along_k, mask=inside, other=0.0)
    apart = (summed - middle[None, :]).to(tl.float32)
    is_strong = tl.load(strong_ptr + at * tl.cdiv(K, 64) + i_k * BK // 64) != 0

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of q
    for begin in range(0, V, BV):
        v_left = V - begin
        vdo = load_tile(do_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vdo, tl.trans(vs), PRECISION)
    grad *= scale * power_of_two(summed.to(tl.float32))
    qk, own_k = _parted(pairs_qk_ptr + square, rows, C)
    qb, own_b = _parted(pairs_qb_ptr + square, rows, C)
    near, up = _of_reader(vq, vk, vb, qk, qb, summed, apart, is_strong, C, PRECISION)
    up += vq * grad
    grad += near + own_k * vk + own_b * vb
    store_tile(dq_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of a
    for begin in range(0, V, BV):
        v_left = V - begin
        dr_at = dr_ptr + token * V + begin
        vdr = load_tile(dr_at, next_rows, along_v, H * V, left, v_left, EVEN_V)
        vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vdr, tl.trans(vs), PRECISION)
    grad *= tl.where(is_pair, power_of_two(summed.to(tl.float32)), 1.0)
    ak, own_k = _parted(pairs_ak_ptr + square, rows, C)
    ab, own_b = _parted(pairs_ab_ptr + square, rows, C)
    near, of_pairs = _of_reader(va, vk, vb, ak, ab, summed, apart, is_strong, C, PRECISION)
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
    qk, own_q = _parted(pairs_qk_ptr + square, rows, C)
    ak, own_a = _parted(pairs_ak_ptr + square, rows, C)
    near, of_pairs = _of_writer(vk, vq, va, qk, ak, summed, apart, is_strong, C, PRECISION)
    up -= of_pairs
    grad += near + own_q * vq + own_a * va
    store_tile(dk_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of b
    for begin in range(0, V, BV):
        v_left = V - begin
        c_at = c_ptr + token * V + begin
        vc = load_tile(c_at, rows, along_v, H * V, left, v_left, EVEN_V)
        vd = load_tile(dstates_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vc, tl.trans(vd), PRECISION)
    grad *= till_end
    down += vb * grad
    qb, own_q = _parted(pairs_qb_ptr + square, rows, C)
    ab, own_a = _parted(pairs_ab_ptr + square, rows, C)
    near, of_pairs = _of_writer(vb, vq, va, qb, ab, summed, apart, is_strong, C, PRECISION)
    up -= of_pairs
    grad += near + own_q * vq + own_a * va
    store_tile(db_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    if GATE_GRAD:
        # The terms of `up` cancel in part.
        SUMMING: tl.constexpr = "ieee" if PRECISION == "ieee" else "tf32x3"
        passing *= power_of_two(total.to(tl.float32))
        dg = product(tl.where(below, 0.0, 1.0), up, SUMMING) + passing[None, :]
        dg += product(tl.where(below, 1.0, 0.0), down, PRECISION)
        store_tile(dg_ptr + out_place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def _row_after(rows, C: tl.constexpr):
    """In a circle."""
    return tl.where(rows == C - 1, 0, rows + 1)


@triton.jit
def _row_before(rows, C: tl.constexpr):
    return tl.where(rows == 0, C - 1, rows - 1)


@triton.jit
def _parted(pairs_at, rows, C: tl.constexpr):
    """Pairs that gates divide, [C, C], and those that none does, a column."""
    pairs = load_tile(pairs_at, rows, tl.arange(0, C), C, C, C, True)
    own = tl.where(rows[:, None] == rows[None, :], pairs, 0.0).to(tl.float32)
    return tl.where(rows[:, None] > rows[None, :], pairs, 0.0), tl.sum(own, 1)[:, None]


@triton.jit
def _of_reader(
    x, k, b, pairs_k, pairs_b, summed, apart, is_strong, C: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """What earlier writers give to the gradient of x, and of the gates' sums where x stands."""
    rows = tl.arange(0, C)
    near = tl.zeros(x.shape, dtype=tl.float32)
    of_sums = tl.zeros(x.shape, dtype=tl.float32)
    if is_strong:
        for s in range(C):
            near += decays_since(summed, rows, s, pairs_k) * row_of(k, rows, s)[None, :]
            near += decays_since(summed, rows, s, pairs_b) * row_of(b, rows, s)[None, :]
        of_sums = x * near
    else:
        reading = power_of_two(apart)
        giving = power_of_two(-apart)
        # Rounded as in `_of_writer`, so that pairs inside the chunk cancel.
        near = product(pairs_k, (k * giving).to(pairs_k.dtype), PRECISION)
        near += product(pairs_b, (b * giving).to(pairs_b.dtype), PRECISION)
        of_sums = (x * reading).to(pairs_k.dtype) * near
        near *= reading
    return near, of_sums


@triton.jit
def _of_writer(
    x, q, a, pairs_q, pairs_a, summed, apart, is_strong, C: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """What later readers give to the gradient of x, and take from that of the gates' sums."""
    rows = tl.arange(0, C)
    near = tl.zeros(x.shape, dtype=tl.float32)
    of_sums = tl.zeros(x.shape, dtype=tl.float32)
    if is_strong:
        for s in range(C):
            weights = decays_since(summed, rows, s, pairs_q) * q
            weights += decays_since(summed, rows, s, pairs_a) * a
            near = tl.where(rows[:, None] == s, tl.sum(weights, 0)[None, :], near)
        of_sums = x * near
    else:
        reading = power_of_two(apart)
        giving = power_of_two(-apart)
        near = product(tl.trans(pairs_q), (q * reading).to(pairs_q.dtype), PRECISION)
        near += product(tl.trans(pairs_a), (a * reading).to(pairs_a.dtype), PRECISION)
        of_sums = (x * giving).to(pairs_q.dtype) * near
        near *= giving
    return near, of_sums
