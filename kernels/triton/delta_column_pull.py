"""Gradients where the state's columns decay: pairs, rows that meet states, and the columns' gates.

In the names of delta_pull.py, with H the columns' log decays (column_decays.py): pairs of tokens
are summed over columns, each with its decay, and what tokens give to the state before the chunk or
take from the gradient after it has the decays on the way: do 2^H, dv 2^H and c 2^(H_end - H) stand
in the places of do, dv and c in the pulls of keys.
A column's gate at r has the gradient that a key channel's has, of columns: with x = S^T e^G q and
y = S^T e^G p what a token reads of earlier tokens and D what later ones ask of it,
    up_t = scale do_t x_t - dv_t y_t - u_t (k_t D of this chunk)
    down_t = u_t (k_t D of later ones),    X = e^G_end sum over keys of S D'
"""

from __future__ import annotations

import triton
import triton.language as tl

from .column_decays import across, pairs_through_decays, since_start, through_decays, till_end
from .delta_channel_pull import divided
from .tiles import before_here, from_here_on, load_tile, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def column_pairs_kernel(
    beta_ptr, sums_ptr, columns_ptr, c_ptr, do_ptr, dv_ptr, pairs_q_ptr, pairs_p_ptr,
    c_till_end_ptr, do_since_start_ptr, dv_since_start_ptr,
    scale, T, H, V, chunks, do_b, do_t, do_h,
    C: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, EVEN_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What pairs_kernel gives, and the three that meet states, [B, T, H, V]."""
    pid = tl.program_id(0)
    chunk = pid % chunks
    bh = (pid // chunks).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype: tl.constexpr = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    along_v = tl.arange(0, BV)
    token = (b * T + first) * H + h  # of [B, T, H]
    do_at = do_ptr + b * do_b + h * do_h + first * do_t
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    pairs_q = tl.zeros((C, C), dtype=tl.float32)
    pairs_p = tl.zeros((C, C), dtype=tl.float32)
    own_q = tl.zeros((C,), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        place = token * V + begin
        columns_at = columns_ptr + at * C * V + begin
        vdo = load_tile(do_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(tl.float32)
        vdv = load_tile(dv_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V).to(tl.float32)
        vc = load_tile(c_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V).to(tl.float32)
        written = vc * strength[:, None]
        own_q += tl.sum(vdo * written, 1)
        pairs_q += pairs_through_decays(
            vdo, written, columns_at, along_v, V, v_left, C, EVEN_V, dtype, PRECISION
        )
        pairs_p += pairs_through_decays(
            vdv, written, columns_at, along_v, V, v_left, C, EVEN_V, dtype, PRECISION
        )
        decay = since_start(columns_at, along_v, V, v_left, C, EVEN_V)
        x = do_since_start_ptr + place
        store_tile(x, vdo * decay, rows, along_v, H * V, left, v_left, EVEN_V)
        x = dv_since_start_ptr + place
        store_tile(x, vdv * decay, rows, along_v, H * V, left, v_left, EVEN_V)
        vc *= till_end(columns_at, along_v, V, v_left, C, EVEN_V)
        store_tile(c_till_end_ptr + place, vc, rows, along_v, H * V, left, v_left, EVEN_V)
    if GATE == 1:
        summed = tl.load(sums_ptr + at * C + rows)
        between = (summed[:, None] - summed[None, :]).to(tl.float32)
        decays = power_of_two(tl.where(rows[:, None] > rows[None, :], between, 0.0))
        pairs_q *= decays
        pairs_p *= decays
    pairs_q = tl.where(rows[:, None] == rows[None, :], own_q[:, None], pairs_q) * scale
    place = at * C * C + rows[:, None] * C + rows[None, :]
    tl.store(pairs_q_ptr + place, pairs_q.to(dtype))
    tl.store(pairs_p_ptr + place, (-pairs_p).to(dtype))


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def pull_columns_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, columns_ptr, system_ptr, scores_ptr,
    c_ptr, do_ptr, dv_ptr, states_ptr, dstates_ptr, dh_ptr,
    scale, T, H, K, V, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h, do_b, do_t, do_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_V: tl.constexpr, STEPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the columns' log decays. GATE 2: q, k, p as delta_sweep.py takes them."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    h = ((pid // parts) % H).to(tl.int64)
    chunk = (pid // (parts * H)) % chunks
    b = (pid // (parts * H * chunks)).to(tl.int64)
    at = (b * H + h) * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = system_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    tokens = (chunk * C + rows) // STEPS
    along_k = tl.arange(0, BK)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    p_at = p_ptr + b * p_b + h * p_h + first * p_t
    token = (b * T + first) * H + h  # of [B, T, H]
    place = token * V + i_v * BV
    columns_at = columns_ptr + at * C * V + i_v * BV
    sums_at = sums_ptr + at * C * (K if GATE == 2 else 1)
    states_at = states_ptr + at * K * V + i_v * BV
    dstates_at = dstates_ptr + at * K * V + i_v * BV

    read = tl.zeros((C, BV), dtype=tl.float32)  # of the state before the chunk, by q
    erased = tl.zeros((C, BV), dtype=tl.float32)  # by p
    wanted = tl.zeros((C, BV), dtype=tl.float32)  # of k's writes, after the chunk
    passing = tl.zeros((BV,), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        vq = load_tile(q_at + begin, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
        vk = load_tile(k_at + begin, rows, along_k, k_t, left, k_left, EVEN_K).to(dtype)
        vp = load_tile(p_at + begin, rows, along_k, p_t, left, k_left, EVEN_K).to(dtype)
        vs = load_tile(states_at + begin * V, along_k, along_v, V, k_left, v_left, EVEN_V)
        vd = load_tile(dstates_at + begin * V, along_k, along_v, V, k_left, v_left, EVEN_V)
        read += product(vq, vs, PRECISION)
        erased += product(vp, vs, PRECISION)
        wanted += product(vk, vd, PRECISION)
        met = vs.to(tl.float32) * vd.to(tl.float32)
        if GATE == 2:
            at_end = sums_at + (C - 1) * K + begin + along_k
            total = tl.load(at_end, mask=along_k < k_left, other=0.0)
            met *= power_of_two(total.to(tl.float32))[:, None]
        passing += tl.sum(met, 0)
    if GATE == 1:
        summed = tl.load(sums_at + rows)
        total = tl.load(sums_at + C - 1)
        from_start = power_of_two(summed.to(tl.float32))[:, None]
        read *= from_start
        erased *= from_start
        wanted *= power_of_two((total - summed).to(tl.float32))[:, None]
        passing *= power_of_two(total.to(tl.float32))
    decay = since_start(columns_at, along_v, V, v_left, C, EVEN_V)
    read *= decay
    erased *= decay

    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    do_at = do_ptr + b * do_b + h * do_h + first * do_t + i_v * BV
    vdo = load_tile(do_at, rows, along_v, do_t, left, v_left, EVEN_V).to(tl.float32)
    vdv = load_tile(dv_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V).to(tl.float32)
    written = load_tile(c_ptr + place, rows, along_v, H * V, left, v_left, EVEN_V)
    written = written.to(tl.float32) * strength[:, None]
    down = written * wanted * till_end(columns_at, along_v, V, v_left, C, EVEN_V)
    # Operands stay in float32, as tf32 to products: what a pair adds to `up` of its reader and
    # takes from its writer's must be nearly one number, so that pairs over a gate alone are left.
    scores = divided(scores_ptr + at * C * C, rows, tokens, C).to(tl.float32)
    read += through_decays(
        scores, written, columns_at, along_v, V, v_left, C, EVEN_V, False, PRECISION
    )
    near = scale * through_decays(
        scores, vdo, columns_at, along_v, V, v_left, C, EVEN_V, True, PRECISION
    )
    system = divided(system_ptr + at * C * C, rows, tokens, C).to(tl.float32)
    erased += through_decays(
        system, written, columns_at, along_v, V, v_left, C, EVEN_V, False, PRECISION
    )
    near -= through_decays(system, vdv, columns_at, along_v, V, v_left, C, EVEN_V, True, PRECISION)
    up = scale * vdo * read - vdv * erased - written * near
    dh = from_here_on(up, rows, PRECISION) + before_here(down, rows, PRECISION)
    dh += (passing * across(columns_at, along_v, V, v_left, C))[None, :]
    store_tile(dh_ptr + place, dh, rows, along_v, H * V, left, v_left, EVEN_V)
