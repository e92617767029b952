"""`chunk_dplr`'s gradients of q, k, a, b and gates: no chunk waits for another.

With c, dc and Z of the other files, dr = dc + Z^T dc, R and R' of dplr_sweep.py, and asked, sought
and given of dplr_factor.py, whose products have the decays between two tokens in them,
    dq_t = scale 2^(G_t - M) (R do_t + sum_{s <= t} (do_t . v_s) given_k_s + (do_t . c_s) given_b_s)
    da_t = 2^(G_{t-1} - M) (R dr_t + sum_{s < t} (dr_t . v_s) given_k_s + (dr_t . c_s) given_b_s)
    dk_s = 2^(M - G_s) (R' v_s + sum of what pairs give to asked_t and, for t > s, sought_t)
and dk with c for v is db. A gate's gradient is made of pairs as in delta_pull.py; a query times its
gradient is the same with its factor as without.
Token t reads under a what a query of t - 1 would see. So a and dr stand a row earlier here, and
pairs with row t - 1 are those that no gate divides. The last row holds the chunk's first token,
which has no pairs in the chunk and whose decay from the chunk's start is 1.
Channels marked strong are left to dplr_exact_pull.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    before_here,
    from_here_on,
    load_tile,
    power_of_two,
    product,
    store_tile,
    through_states,
)


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
def readers_kernel(
    asked_ptr, sought_ptr, given_k_ptr, given_b_ptr, sums_ptr, strong_ptr, ends_ptr,
    do_ptr, dr_ptr, states_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    dq_ptr, da_ptr, dg_ptr,
    scale, T, H, K, V, chunks, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq and da; as dg what they give to the gates' gradients."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    h = ((pid // parts) % H).to(tl.int64)  # heads before chunks, as in dplr_factor.py
    chunk = (pid // (parts * H)) % chunks
    b = (pid // (parts * H * chunks)).to(tl.int64)
    at = (b * H + h) * chunks + chunk
    if tl.load(strong_ptr + at * tl.cdiv(K, 64) + i_k * BK // 64) != 0:
        return
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    rows = tl.arange(0, C)
    next_rows = row_after(rows, C)
    along_k = tl.arange(0, BK)
    k_left = K - i_k * BK
    token = (b * T + first) * H + h  # of [B, T, H]
    place = token * K + i_k * BK
    states_at = states_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    square = at * C * C
    sums_at = sums_ptr + at * C * K + i_k * BK
    ends_at = ends_ptr + at * 3 * K + i_k * BK + along_k
    asked_at, given_k_at, given_b_at = asked_ptr + place, given_k_ptr + place, given_b_ptr + place
    middle = tl.load(ends_at, mask=along_k < k_left, other=0.0)
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    dr_at = dr_ptr + token * V
    is_pair = rows[:, None] < C - 1  # in the rows of a

    grad = scale * through_states(  # of asked
        do_at, rows, do_t, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    given_k = load_tile(given_k_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_qk_ptr + square, rows, C)
    grad += product(divided, given_k, PRECISION)
    near = own * given_k
    given_b = load_tile(given_b_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_qb_ptr + square, rows, C)
    grad += product(divided, given_b, PRECISION)
    near += own * given_b
    asked = load_tile(asked_at, rows, along_k, H * K, left, k_left, EVEN_K)
    up = asked * grad
    apart = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K) - middle[None, :]
    grad = (grad + near) * power_of_two(apart.to(tl.float32))
    store_tile(dq_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = through_states(  # of sought
        dr_at, next_rows, H * V, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    given_k = load_tile(given_k_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_ak_ptr + square, rows, C)
    grad += product(divided, given_k, PRECISION)
    near = own * given_k
    given_b = load_tile(given_b_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_ab_ptr + square, rows, C)
    grad += product(divided, given_b, PRECISION)
    near += own * given_b
    sought = load_tile(sought_ptr + place, next_rows, along_k, H * K, left, k_left, EVEN_K)
    up += tl.where(is_pair, sought * grad, 0.0)
    apart = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K)
    apart = tl.where(is_pair, apart, 0.0) - middle[None, :]
    grad = (grad + near) * power_of_two(apart.to(tl.float32))
    store_tile(da_ptr + place, grad, next_rows, along_k, H * K, left, k_left, EVEN_K)

    if GATE_GRAD:
        dg = from_here_on(up, rows, PRECISION)
        store_tile(dg_ptr + place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def writers_kernel(
    asked_ptr, sought_ptr, given_k_ptr, given_b_ptr, v_ptr, sums_ptr, strong_ptr, ends_ptr,
    c_ptr, states_ptr, dstates_ptr, pairs_qk_ptr, pairs_qb_ptr, pairs_ak_ptr, pairs_ab_ptr,
    dk_ptr, db_ptr, dg_ptr,
    T, H, K, V, chunks, v_b, v_t, v_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE_GRAD: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and db; adds to dg what the readers left there."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    h = ((pid // parts) % H).to(tl.int64)  # heads before chunks, as in dplr_factor.py
    chunk = (pid // (parts * H)) % chunks
    b = (pid // (parts * H * chunks)).to(tl.int64)
    at = (b * H + h) * chunks + chunk
    if tl.load(strong_ptr + at * tl.cdiv(K, 64) + i_k * BK // 64) != 0:
        return
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    next_rows = row_after(rows, C)
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    k_left = K - i_k * BK
    token = (b * T + first) * H + h  # of [B, T, H]
    place = token * K + i_k * BK
    states_at = states_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    square = at * C * C
    sums_at = sums_ptr + at * C * K + i_k * BK
    ends_at = ends_ptr + at * 3 * K + i_k * BK + along_k
    asked_at, given_k_at, given_b_at = asked_ptr + place, given_k_ptr + place, given_b_ptr + place
    middle = tl.load(ends_at, mask=along_k < k_left, other=0.0)
    v_at = v_ptr + b * v_b + h * v_h + first * v_t
    c_at = c_ptr + token * V
    dstates_at = dstates_ptr + at * K * V + i_k.to(tl.int64) * BK * V

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of given_k
    passing = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        vv = load_tile(v_at + begin, rows, along_v, v_t, left, v_left, EVEN_V).to(dtype)
        vd = load_tile(dstates_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vv, tl.trans(vd), PRECISION)
        if GATE_GRAD:
            vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
            passing += tl.sum(vs.to(tl.float32) * vd.to(tl.float32), 1)
    given_k = load_tile(given_k_at, rows, along_k, H * K, left, k_left, EVEN_K)
    down = (given_k * grad).to(dtype)
    asked = load_tile(asked_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_qk_ptr + square, rows, C)
    near = product(tl.trans(divided), asked, PRECISION)
    own_q = own
    sought = load_tile(sought_ptr + place, next_rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_ak_ptr + square, rows, C)
    near += product(tl.trans(divided), sought, PRECISION)
    given_k = load_tile(given_k_at, rows, along_k, H * K, left, k_left, EVEN_K)
    up = -given_k * near
    grad += near
    asked = load_tile(asked_at, rows, along_k, H * K, left, k_left, EVEN_K)
    grad += own_q * asked
    sought = load_tile(sought_ptr + place, next_rows, along_k, H * K, left, k_left, EVEN_K)
    grad += own * sought
    apart = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K) - middle[None, :]
    grad *= power_of_two(-apart.to(tl.float32))
    store_tile(dk_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = through_states(  # of given_b
        c_at, rows, H * V, dstates_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    given_b = load_tile(given_b_at, rows, along_k, H * K, left, k_left, EVEN_K)
    down = (down + given_b * grad).to(dtype)
    asked = load_tile(asked_at, rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_qb_ptr + square, rows, C)
    near = product(tl.trans(divided), asked, PRECISION)
    own_q = own
    sought = load_tile(sought_ptr + place, next_rows, along_k, H * K, left, k_left, EVEN_K)
    divided, own = parted(pairs_ab_ptr + square, rows, C)
    near += product(tl.trans(divided), sought, PRECISION)
    given_b = load_tile(given_b_at, rows, along_k, H * K, left, k_left, EVEN_K)
    up -= given_b * near
    grad += near
    asked = load_tile(asked_at, rows, along_k, H * K, left, k_left, EVEN_K)
    grad += own_q * asked
    sought = load_tile(sought_ptr + place, next_rows, along_k, H * K, left, k_left, EVEN_K)
    grad += own * sought
    apart = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K) - middle[None, :]
    grad *= power_of_two(-apart.to(tl.float32))
    store_tile(db_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    if GATE_GRAD:
        dg = from_here_on(up, rows, PRECISION) + before_here(down, rows, PRECISION)
        dg += load_tile(dg_ptr + place, rows, along_k, H * K, left, k_left, EVEN_K)
        dg += passing[None, :]
        store_tile(dg_ptr + place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def row_after(rows, C: tl.constexpr):
    """In a circle."""
    return tl.where(rows == C - 1, 0, rows + 1)


@triton.jit
def _row_before(rows, C: tl.constexpr):
    return tl.where(rows == 0, C - 1, rows - 1)


@triton.jit
def parted(pairs_at, rows, C: tl.constexpr):
    """Pairs that gates divide, [C, C], and those that none does, a column."""
    pairs = load_tile(pairs_at, rows, tl.arange(0, C), C, C, C, True)
    own = tl.where(rows[:, None] == rows[None, :], pairs, 0.0).to(tl.float32)
    return tl.where(rows[:, None] > rows[None, :], pairs, 0.0), tl.sum(own, 1)[:, None]
