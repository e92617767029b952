"""The delta rule's gradients of keys, queries and gates: no chunk waits for another.

With u = b c the writes, S the state before a chunk and D' the gradient of the one after it, both
kept by delta_sweep.py, w(t, s) the decay between two tokens and G its log summed from the start:
    dq_t = scale (e^G_t S do_t + sum_{s <= t} w(t, s) (do_t . u_s) k_s)
    dp_t =       -e^G_t S dv_t - sum_{s < t}  w(t, s) (dv_t . u_s) k_s
    dk_s = w(end, s) D' u_s + sum of what pairs of s give to q_t and, for t > s, p_t in return
A gate's gradient at r sums the pairs s < r <= t of writers and readers: with `up` the pairs that
end at t less those that begin there and stay in the chunk, `down` those that begin at s and leave
it, and X those that pass over the chunk,
    dg_r = sum_{t >= r} up_t + sum_{s < r} down_s + X,      X = e^G_end <S, D'>
Pairs inside a token (with itself, and of its STEPS rows), which no gate divides, are never added
to them: where all gates are strong, their rounding would be larger than the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .column_decays import across
from .tiles import diagonal_of, load_tile, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def pairs_kernel(
    beta_ptr, sums_ptr, c_ptr, do_ptr, dv_ptr, pairs_q_ptr, pairs_p_ptr,
    scale, T, H, V, chunks, do_b, do_t, do_h,
    C: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What pairs in a chunk give: scale do_t . u_s and -dv_t . u_s, decayed for GATE 1."""
    pid = tl.program_id(0)
    chunk = pid % chunks
    bh = (pid // chunks).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    along_v = tl.arange(0, BV)
    token = (b * T + first) * H + h  # of [B, T, H]
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    pairs_q = tl.zeros((C, C), dtype=tl.float32)
    pairs_p = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        place = token * V + begin
        vdo = load_tile(do_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vdv = load_tile(dv_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V).to(dtype)
        vc = load_tile(c_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V)
        written = tl.trans((vc * strength[:, None]).to(dtype))
        pairs_q += product(vdo, written, PRECISION)
        pairs_p += product(vdv, written, PRECISION)
    pairs_q = tl.where(rows[:, None] >= rows[None, :], pairs_q * scale, 0.0)
    pairs_p = tl.where(rows[:, None] > rows[None, :], -pairs_p, 0.0)
    if GATE == 1:
        summed = tl.load(sums_ptr + at * C + rows)
        between = (summed[:, None] - summed[None, :]).to(tl.float32)
        decay = power_of_two(tl.minimum(between, 0.0))
        pairs_q *= decay
        pairs_p *= decay
    place = at * C * C + rows[:, None] * C + rows[None, :]
    tl.store(pairs_q_ptr + place, pairs_q.to(dtype))
    tl.store(pairs_p_ptr + place, pairs_p.to(dtype))


@triton.jit(do_not_specialize=["T", "H", "chunks", "dg_part"])
def pull_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, c_ptr, do_ptr, dv_ptr,
    states_ptr, dstates_ptr, pairs_q_ptr, pairs_p_ptr,
    dq_ptr, dk_ptr, dp_ptr, dg_ptr,
    scale, T, H, K, V, chunks, dg_part,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
    OWN_KEY: tl.constexpr, GATE_GRAD: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr,
    STEPS: tl.constexpr, PRECISION: tl.constexpr, OF_Q: tl.constexpr = True,
    columns_ptr=None,
):  # fmt: skip
    """dq if OF_Q, dk (with dp where p is k), dp and dg, a head's in a part for each BK channels."""
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
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    k_left = K - i_k * BK
    q_at = q_ptr + b * q_b + h * q_h + first * q_t + i_k * BK
    k_at = k_ptr + b * k_b + h * k_h + first * k_t + i_k * BK
    p_at = p_ptr + b * p_b + h * p_h + first * p_t + i_k * BK
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    token = (b * T + first) * H + h  # of [B, T, H]
    out_place = token * K + i_k * BK
    states_at = states_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    dstates_at = dstates_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    if columns_ptr is not None:
        columns_at = columns_ptr + at * C * V
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    below = rows[:, None] > rows[None, :]

    # One after the other, since few of their tiles fit into the registers together.
    vq = load_tile(q_at, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
    vk = load_tile(k_at, rows, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    if OWN_KEY:
        vp = vk
    else:
        vp = load_tile(p_at, rows, along_k, p_t, left, k_left, EVEN_K).to(dtype)
    pairs_q = load_tile(pairs_q_ptr + at * C * C, rows, tl.arange(0, C), C, C, C, True)
    pairs_p = load_tile(pairs_p_ptr + at * C * C, rows, tl.arange(0, C), C, C, C, True)
    if GATE == 1:
        summed = tl.load(sums_ptr + at * C + rows)
        total = tl.load(sums_ptr + at * C + C - 1)
        from_start = power_of_two(summed.to(tl.float32))[:, None]
        till_end = power_of_two((total - summed).to(tl.float32))[:, None]
    if GATE != 0:
        if STEPS == 1:
            own = diagonal_of(pairs_q, rows)
            pairs_q = tl.where(below, pairs_q, 0.0)
        else:
            of_token = (chunk * C + rows) // STEPS
            together = of_token[:, None] == of_token[None, :]
            own = tl.where(together, pairs_q, 0.0)
            own_p = tl.where(together, pairs_p, 0.0)
            pairs_q = tl.where(together, 0.0, pairs_q)
            pairs_p = tl.where(together, 0.0, pairs_p)

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of q
    for begin in range(0, V, BV):
        v_left = V - begin
        vdo = load_tile(do_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vdo, tl.trans(vs), PRECISION)
    grad *= scale
    if GATE == 1:
        grad = grad * from_start + product(pairs_q, vk, PRECISION)
        up = tl.sum(vq * grad, 1)
        grad += _within(own, vk, STEPS, PRECISION)
    else:
        grad += product(pairs_q, vk, PRECISION)
    if OF_Q:
        store_tile(dq_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    of_p = tl.zeros((C, BK), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        dv_at = dv_ptr + token * V + begin
        vdv = load_tile(dv_at, rows, along_v, H * V, left, v_left, EVEN_V).to(dtype)
        vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        of_p += product(vdv, tl.trans(vs), PRECISION)
    if GATE == 1:
        of_p = product(pairs_p, vk, PRECISION) - of_p * from_start
        up += tl.sum(vp * of_p, 1)
    else:
        of_p = product(pairs_p, vk, PRECISION) - of_p
    if GATE != 0 and STEPS > 1:
        of_p += product(own_p, vk, PRECISION)
    if not OWN_KEY:
        store_tile(dp_ptr + out_place, of_p, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of k
    passing = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        c_at = c_ptr + token * V + begin
        vc = load_tile(c_at, rows, along_v, H * V, left, v_left, EVEN_V)
        vd = load_tile(dstates_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product((vc * strength[:, None]).to(dtype), tl.trans(vd), PRECISION)
        if GATE_GRAD:
            vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
            met = vs.to(tl.float32) * vd.to(tl.float32)
            if columns_ptr is not None:
                met *= across(columns_at + begin, along_v, V, v_left, C)[None, :]
            passing += tl.sum(met, 1)
    near = product(tl.trans(pairs_q), vq, PRECISION)
    near += product(tl.trans(pairs_p), vp, PRECISION)
    if GATE == 1:
        grad *= till_end
        up -= tl.sum(vk * near, 1)
    if GATE_GRAD:
        down = tl.sum(vk * grad, 1)[:, None]
        dg = tl.sum(tl.where(rows[:, None] >= rows[None, :], up[:, None], 0.0), 0)
        dg += tl.sum(tl.where(rows[:, None] < rows[None, :], down, 0.0), 0)
        dg += tl.sum(passing, 0) * power_of_two(total.to(tl.float32))
        dg_at = dg_ptr + i_k.to(tl.int64) * dg_part + token
        tl.store(dg_at + rows * H, dg, mask=rows < left)
    grad += near
    if GATE != 0:
        if STEPS > 1:
            own = tl.trans(own)
            grad += product(tl.trans(own_p), vp, PRECISION)
        grad += _within(own, vq, STEPS, PRECISION)
    if OWN_KEY:
        grad += of_p
    store_tile(dk_ptr + out_place, grad, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def _within(own, x, STEPS: tl.constexpr, PRECISION: tl.constexpr):
    """What the pairs inside each token give: own is a column for one step a token, else [C, C]."""
    if STEPS == 1:
        given = own * x
    else:
        given = product(own, x, PRECISION)
    return given
