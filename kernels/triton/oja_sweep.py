"""Oja's rule's pass over a sequence, chunk by chunk: what each token writes, and the states.

With M = S^T [V, K] the rule is the delta rule whose key is v and whose value is k:
    r = k - e^G v M        c = r - Z (b r)        M' = e^G_end M + (w(end, .) v)^T (b c)
with Z of delta_solve.py, G the log decays summed from the chunk's start and w those between tokens.
Programs hold all rows of M and some of its columns, [BV, BK]. GATE is 0 none, 1 a head's, 2 a
channel's of v: then w(end, .) v and e^G v come in the places of giving and erasing, else v itself.

M is read from its other side, where no later token corrects what its roundings left. So Z and what
it multiplies keep float32, whose products round them to tf32, and what is written goes into M in
two bfloat16 parts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import load_tile, not_hoisted, power_of_two, product, store_tile


@triton.jit
def lost_in(DTYPE: tl.constexpr, x):
    """What of x in float32 its rounding to DTYPE leaves out, in DTYPE."""
    return (x - x.to(DTYPE).to(tl.float32)).to(DTYPE)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def corrections_kernel(
    giving_ptr, erasing_ptr, k_ptr, beta_ptr, sums_ptr, z_ptr, start_ptr,
    final_ptr, c_ptr, states_ptr,
    T, H, K, V, chunks, v_b, v_t, v_h, k_b, k_t, k_h,
    C: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr,
    HAS_START: tl.constexpr, EVEN_V: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """c and the state before each chunk, both as later passes read them, and the final state."""
    pid = tl.program_id(0)
    parts = tl.cdiv(K, BK)
    i_k = pid % parts
    bh = (pid // parts).to(tl.int64)
    b = bh // H
    h = bh % H
    dtype = c_ptr.dtype.element_ty
    along_v = tl.arange(0, BV)
    along_k = tl.arange(0, BK)
    k_left = K - i_k * BK
    giving_at = giving_ptr + b * v_b + h * v_h
    erasing_at = erasing_ptr + b * v_b + h * v_h
    k_at = k_ptr + b * k_b + h * k_h + i_k * BK
    token = b * T * H + h  # of [B, T, H]
    beta_at = beta_ptr + token
    c_at = c_ptr + token * K + i_k * BK
    square = bh * chunks * C
    z_at = z_ptr + square * C
    sums_at = sums_ptr + square * (V if GATE == 2 else 1)
    states_at = states_ptr + bh * chunks * V * K + i_k * BK
    left = T

    state_place = bh * V * K + along_v[:, None] * K + i_k * BK + along_k[None, :]
    state_mask = (along_v[:, None] < V) & (along_k[None, :] < k_left)
    if HAS_START:
        state = tl.load(start_ptr + state_place, mask=state_mask, other=0.0)
    else:
        state = tl.zeros((BV, BK), dtype=tl.float32)

    for _ in range(chunks):
        rows = not_hoisted(tl.arange(0, C), left)
        giving = load_tile(giving_at, rows, along_v, v_t, left, V, EVEN_V).to(dtype)
        if GATE == 2:
            erasing = load_tile(erasing_at, rows, along_v, v_t, left, V, EVEN_V).to(dtype)
        else:
            erasing = giving
        vk = load_tile(k_at, rows, along_k, k_t, left, k_left, EVEN_K)
        vz = load_tile(z_at, rows, tl.arange(0, C), C, C, C, True)
        strength = tl.load(beta_at + rows * H, mask=rows < left, other=0.0)
        held = state.to(dtype)
        store_tile(states_at, held, along_v, along_k, K, V, k_left, EVEN_K)
        missing = product(erasing, held, PRECISION)
        if GATE == 1:
            summed = tl.load(sums_at + rows)
            total = tl.load(sums_at + C - 1)
            missing *= power_of_two(summed.to(tl.float32))[:, None]
        missing = vk - missing
        missing += product(-vz, missing * strength[:, None], PRECISION)
        store_tile(c_at, missing, rows, along_k, H * K, left, k_left, EVEN_K)
        written = missing * strength[:, None]
        if GATE == 1:
            written *= power_of_two((total - summed).to(tl.float32))[:, None]
            state *= power_of_two(total.to(tl.float32))
        if GATE == 2:
            total = tl.load(sums_at + (C - 1) * V + along_v, mask=along_v < V, other=0.0)
            state *= power_of_two(total.to(tl.float32))[:, None]
        state += product(tl.trans(giving), written.to(dtype), PRECISION)
        if dtype == tl.bfloat16:
            state += product(tl.trans(giving), lost_in(dtype, written), PRECISION)
        giving_at += C * v_t
        erasing_at += C * v_t
        k_at += C * k_t
        beta_at += C * H
        c_at += C * H * K
        z_at += C * C
        sums_at += C * (V if GATE == 2 else 1)
        states_at += V * K
        left -= C
    tl.store(final_ptr + state_place, state, mask=state_mask)
