"""delta_pull.py's work for a decay of each channel: decays are put into rows, not between them.

With M the sum of log decays at a chunk's middle rounded down, as in gates.py,
    asked_t = 2^(G_t - M) q_t       sought_t = 2^(G_t - M) p_t       given_s = 2^(M - G_s) k_s
meet as they are: pairs in products, and the chunk's states as 2^M S and 2^(G_end - M) D'. So
    dq_t = 2^(G_t - M) (scale 2^M S do_t + sum_{s <= t} (do_t . u_s) given_s)
and likewise dp and dk; a row times its gradient is the same with its factor as without. The gates'
gradients are those of delta_pull.py. Channels marked strong are left to delta_exact_pull.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .column_decays import across
from .tiles import (
    before_here,
    from_here_on,
    load_tile,
    not_hoisted,
    power_of_two,
    product,
    store_tile,
    through_states,
)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def pull_channels_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, strong_ptr, c_ptr, do_ptr, dv_ptr,
    states_ptr, dstates_ptr, pairs_q_ptr, pairs_p_ptr,
    dq_ptr, dk_ptr, dp_ptr, dg_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    OWN_KEY: tl.constexpr, GATE_GRAD: tl.constexpr, EVEN_K: tl.constexpr, EVEN_V: tl.constexpr,
    STEPS: tl.constexpr, PRECISION: tl.constexpr, OF_Q: tl.constexpr = True,
    columns_ptr=None,
):  # fmt: skip
    """dq if OF_Q, dk (with dp where p is k), dp and dg."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    # Heads before chunks: a token's heads are neighbours in memory.
    h = ((pid // parts) % H).to(tl.int64)
    chunk = (pid // (parts * H)) % chunks
    b = (pid // (parts * H * chunks)).to(tl.int64)
    at = (b * H + h) * chunks + chunk
    if tl.load(strong_ptr + at * tl.cdiv(K, 64) + i_k * BK // 64) != 0:
        return
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
    square = at * C * C
    sums_at = sums_ptr + at * C * K + i_k * BK
    inside = along_k < k_left
    middle = tl.floor(tl.load(sums_at + (C // 2 - 1) * K + along_k, mask=inside, other=0.0))
    total = tl.load(sums_at + (C - 1) * K + along_k, mask=inside, other=0.0)
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)

    # Rows are loaded anew for each gradient: what is kept meanwhile would not fit into registers.
    # Each `again` is `rows` in another form, or the compiler would make one load of two.
    apart = _apart(sums_at, rows, along_k, middle, K, C, k_left, EVEN_K)
    asked = load_tile(q_at, rows, along_k, q_t, left, k_left, EVEN_K) * power_of_two(apart)
    pairs = divided(pairs_q_ptr + square, rows, tokens, C)
    near = product(tl.trans(pairs), asked.to(dtype), PRECISION)
    sought = load_tile(p_at, rows, along_k, p_t, left, k_left, EVEN_K) * power_of_two(apart)
    pairs = divided(pairs_p_ptr + square, rows, tokens, C)
    near += product(tl.trans(pairs), sought.to(dtype), PRECISION)
    grad = tl.zeros((C, BK), dtype=tl.float32)  # of given
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
    grad *= power_of_two((total - middle).to(tl.float32))[None, :]
    again = not_hoisted(rows, left)
    apart = _apart(sums_at, again, along_k, middle, K, C, k_left, EVEN_K)
    given = load_tile(k_at, again, along_k, k_t, left, k_left, EVEN_K) * power_of_two(-apart)
    given = given.to(dtype)
    down = (given * grad).to(dtype)
    up = -given * near
    dk = (grad + near) * power_of_two(-apart)

    grad = through_states(  # of asked
        do_at, rows, do_t, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= (scale * power_of_two(middle.to(tl.float32)))[None, :]
    again = not_hoisted(rows, 2 * left)
    apart = _apart(sums_at, again, along_k, middle, K, C, k_left, EVEN_K)
    vk = load_tile(k_at, again, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    pairs = divided(pairs_q_ptr + square, again, tokens, C)
    grad += product(pairs, (vk * power_of_two(-apart)).to(dtype), PRECISION)
    vq = load_tile(q_at, again, along_k, q_t, left, k_left, EVEN_K).to(dtype)
    dk += within(pairs_q_ptr + square, vq, rows, tokens, C, True, STEPS, PRECISION)
    reading = power_of_two(apart)
    up += (vq * reading).to(dtype) * grad
    if OF_Q:
        grad = grad * reading + within(
            pairs_q_ptr + square, vk, rows, tokens, C, False, STEPS, PRECISION
        )
        store_tile(dq_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)

    grad = through_states(  # of sought
        dv_at, rows, H * V, states_at, along_k, left, k_left, V, BV, EVEN_V, PRECISION
    )
    grad *= -power_of_two(middle.to(tl.float32))[None, :]
    again = not_hoisted(rows, 3 * left)
    apart = _apart(sums_at, again, along_k, middle, K, C, k_left, EVEN_K)
    vk = load_tile(k_at, again, along_k, k_t, left, k_left, EVEN_K).to(dtype)
    pairs = divided(pairs_p_ptr + square, again, tokens, C)
    grad += product(pairs, (vk * power_of_two(-apart)).to(dtype), PRECISION)
    vp = load_tile(p_at, again, along_k, p_t, left, k_left, EVEN_K).to(dtype)
    reading = power_of_two(apart)
    up += (vp * reading).to(dtype) * grad
    grad *= reading
    if STEPS > 1:
        dk += within(pairs_p_ptr + square, vp, rows, tokens, C, True, STEPS, PRECISION)
        grad += within(pairs_p_ptr + square, vk, rows, tokens, C, False, STEPS, PRECISION)
    if OWN_KEY:
        dk += grad
    else:
        store_tile(dp_ptr + place, grad, rows, along_k, H * K, left, k_left, EVEN_K)
    store_tile(dk_ptr + place, dk, rows, along_k, H * K, left, k_left, EVEN_K)
    if GATE_GRAD:
        dg = from_here_on(up, rows, PRECISION) + before_here(down, rows, PRECISION)
        dg += (passing * power_of_two(total.to(tl.float32)))[None, :]
        store_tile(dg_ptr + place, dg, rows, along_k, H * K, left, k_left, EVEN_K)


@triton.jit
def _apart(
    sums_at, rows, along_k, middle, K, C: tl.constexpr, k_left, EVEN_K: tl.constexpr
):  # fmt: skip
    """G - M, [C, BK]."""
    summed = load_tile(sums_at, rows, along_k, K, C, k_left, EVEN_K)
    return (summed - middle[None, :]).to(tl.float32)


@triton.jit
def divided(pairs_at, rows, tokens, C: tl.constexpr):
    """Pairs [C, C] that gates divide: of two tokens."""
    pairs = load_tile(pairs_at, rows, tl.arange(0, C), C, C, C, True)
    return tl.where(tokens[:, None] == tokens[None, :], 0.0, pairs)


@triton.jit
def within(
    pairs_at, x, rows, tokens, C: tl.constexpr, BACK: tl.constexpr, STEPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What the pairs inside each token give to readers of rows x or, BACK, to their writers."""
    if STEPS == 1:
        given = tl.load(pairs_at + rows * (C + 1)).to(tl.float32)[:, None] * x
    else:
        pairs = load_tile(pairs_at, rows, tl.arange(0, C), C, C, C, True)
        pairs = tl.where(tokens[:, None] == tokens[None, :], pairs, 0.0)
        given = product(tl.trans(pairs) if BACK else pairs, x, PRECISION)
    return given
