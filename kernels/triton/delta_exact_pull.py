"""delta_channel_pull.py's work for channels marked strong: decays between each two tokens."""

from __future__ import annotations

import triton
import triton.language as tl

from .column_decays import across
from .delta_channel_pull import divided, within
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
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, strong_ptr, c_ptr, do_ptr, dv_ptr,
    states_ptr, dstates_ptr, pairs_q_ptr, pairs_p_ptr,
    dq_ptr, dk_ptr, dp_ptr, dg_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    OWN_KEY: tl.constexpr, GATE_GRAD: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr,
    STEPS: tl.constexpr, AT_ONCE: tl.constexpr, PRECISION: tl.constexpr, OF_Q: tl.constexpr = True,
    columns_ptr=None,
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
                q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, c_ptr, do_ptr, dv_ptr,
                states_ptr, dstates_ptr, pairs_q_ptr, pairs_p_ptr, dq_ptr, dk_ptr, dp_ptr, dg_ptr,
                scale, T, H, K, V, chunks, i_k, b, h, chunk,
                q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
                C, BK, BV, OWN_KEY, GATE_GRAD, EVEN_K, EVEN_V, STEPS, PRECISION, OF_Q, columns_ptr,
            )  # fmt: skip


@triton.jit
def _pull_chunk(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, c_ptr, do_ptr, dv_ptr,
    states_ptr, dstates_ptr, pairs_q_ptr, pairs_p_ptr, dq_ptr, dk_ptr, dp_ptr, dg_ptr,
    scale, T, H, K, V, chunks, i_k, b, h, chunk,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    OWN_KEY: tl.constexpr, GATE_GRAD: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr,
    STEPS: tl.constexpr, PRECISION: tl.constexpr, OF_Q: tl.constexpr, columns_ptr,
):  # fmt: skip
    at = (b * H + h) * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    tokens = (chunk * C + rows) // STEPS
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    k_left = K - i_k * BK
    token = (b * T + first) * H + h  # of [B, T, H]
    place = token * K + i_k * BK
    q_at = q_ptr + b * q_b + h * q_h + first * q_t + i_k * BK
    k_at = k_ptr + b * k_b + h * k_h + first * k_t + i_k * BK
    p_at = p_ptr + b * p_b + h * p_h + first * p_t + i_k * BK
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    dv_at = dv_ptr + token * V
    c_at = c_ptr + token * V
    states_at = states_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    dstates_at = dstates_ptr + at * K * V + i_k.to(tl.int64) * BK * V
    if columns_ptr is not None:
        columns_at = columns_ptr + at * C * V
    sums_at = sums_ptr + at * C * K + i_k * BK
    summed = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K)
    total = tl.load(sums_at + (C - 1) * K + along_k, mask=along_k < k_left, other=0.0)
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    vq = load_tile(q_at, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
    vk = load_tile(k_at, rows, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    vp = load_tile(p_at, rows, along_k, p_t, left, k_left, EVEN_K).to(dtype)
    pairs_q_at = pairs_q_ptr + at * C * C
    pairs_p_at = pairs_p_ptr + at * C * C
    pairs_q = divided(pairs_q_at, rows, tokens, C)
    pairs_p = divided(pairs_p_at, rows, tokens, C)

    grad = through_states(  # of q
        do_at, rows, do_t, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= scale * power_of_two(summed.to(tl.float32))
    grad += _of_reader(vk, pairs_q, summed, C)
    up = vq * grad
    if OF_Q:
        grad += within(pairs_q_at, vk, rows, tokens, C, False, STEPS, PRECISION)
        store_tile(dq_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    of_p = through_states(
        dv_at, rows, H * V, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    of_p *= -power_of_two(summed.to(tl.float32))
    of_p += _of_reader(vk, pairs_p, summed, C)
    up += vp * of_p
    if STEPS > 1:
        of_p += within(pairs_p_at, vk, rows, tokens, C, False, STEPS, PRECISION)
    if not OWN_KEY:
        store_tile(dp_ptr + place, of_p, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = tl.zeros((C, BK), dtype=tl.float32)  # of k
    passing = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        vc = load_tile(c_at + begin, rows, along_v, H * V, left, v_left, EVEN_V)
        vd = load_tile(dstates_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        grad += product(vc, tl.trans(vd), PRECISION)
        if GATE_GRAD:
            vs = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
            met = vs.to(tl.float32) * vd.to(tl.float32)
            if columns_ptr is not None:
                met *= across(columns_at + begin, along_v, V, v_left, C)[None, :]
            passing += tl.sum(met, 1)
    grad *= strength[:, None]
    grad *= power_of_two((total[None, :] - summed).to(tl.float32))
    down = vk * grad
    near = tl.zeros((C, BK), dtype=tl.float32)
    for s in range(C):
        weights = decays_since(summed, rows, s, pairs_q) * vq
        weights += decays_since(summed, rows, s, pairs_p) * vp
        near = tl.where(rows[:, None] == s, tl.sum(weights, 0)[None, :], near)
    up -= vk * near
    grad += near + within(pairs_q_at, vq, rows, tokens, C, True, STEPS, PRECISION)
    if STEPS > 1:
        grad += within(pairs_p_at, vp, rows, tokens, C, True, STEPS, PRECISION)
    if OWN_KEY:
        grad += of_p
    store_tile(dk_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)
    if GATE_GRAD:
        dg = from_here_on(up, rows, PRECISION) + before_here(down, rows, PRECISION)
        dg += (passing * power_of_two(total.to(tl.float32)))[None, :]
        store_tile(dg_ptr + place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def _of_reader(k, pairs, summed, C: tl.constexpr):
    """What earlier writers give to a reader's gradient."""
    rows = tl.arange(0, C)
    near = tl.zeros(k.shape, dtype=tl.float32)
    for s in range(C):
        near += decays_since(summed, rows, s, pairs) * row_of(k, rows, s)[None, :]
    return near
