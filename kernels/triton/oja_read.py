"""Oja's rule's reads of kept states and corrections: no chunk waits for another.

With M the state [V, K] before a chunk and u = b c what is written in it, both kept by oja_sweep.py,
w(t, s) the decay between two tokens and G its log summed from the start:
    o_t = scale (e^G_t M q_t + sum_{s <= t} w(t, s) (q_t . u_s) v_s)
    dq_t = scale (M^T e^G_t do_t + sum_{s <= t} (do_t . w(t, s) v_s) u_s)
So outputs are read from the states that the corrections were made for, as those were rounded.
What they add to it, u and the pairs q . u, are taken in two bfloat16 parts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .oja_sweep import lost_in
from .strong_gates import decays_since
from .tiles import diagonal_of, load_tile, power_of_two, product, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def outputs_kernel(
    q_ptr, v_ptr, beta_ptr, sums_ptr, strong_ptr, c_ptr, states_ptr, o_ptr,
    scale, T, H, K, V, chunks, q_b, q_t, q_h, v_b, v_t, v_h,
    C: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr,
    EVEN_V: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    chunk = (pid // parts) % chunks
    bh = (pid // (parts * chunks)).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = c_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    along_v = tl.arange(0, BV)
    along_k = tl.arange(0, BK)
    v_left = V - i_v * BV
    token = (b * T + first) * H + h  # of [B, T, H]
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    states_at = states_ptr + at * V * K + i_v.to(tl.int64) * BV * K
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)

    out = tl.zeros((C, BV), dtype=tl.float32)
    pairs = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        vq = load_tile(q_at + begin, rows, along_k, q_t, left, k_left, EVEN_K).to(dtype)
        c_at = c_ptr + token * K + begin
        vc = load_tile(c_at, rows, along_k, H * K, left, k_left, EVEN_K)
        vs = load_tile(states_at + begin, along_v, along_k, K, v_left, k_left, EVEN_K)
        out += product(vq, tl.trans(vs), PRECISION)
        written = tl.trans(vc * strength[:, None])
        pairs += product(vq, written.to(dtype), PRECISION)
        if dtype == tl.bfloat16:
            pairs += product(vq, lost_in(dtype, written), PRECISION)
    out *= scale
    pairs = tl.where(rows[:, None] >= rows[None, :], pairs * scale, 0.0)

    v_at = v_ptr + b * v_b + h * v_h + first * v_t + i_v * BV
    vv = load_tile(v_at, rows, along_v, v_t, left, v_left, EVEN_V).to(dtype)
    if GATE == 2:
        sums_at = sums_ptr + at * C * V + i_v * BV
        summed = load_tile(sums_at, rows, along_v, V, C, v_left, EVEN_V)
        out *= power_of_two(summed.to(tl.float32))
        if tl.load(strong_ptr + at * tl.cdiv(V, 64) + i_v * BV // 64) != 0:
            for s in range(C):
                out += decays_since(summed, rows, s, pairs) * row_of(vv, rows, s)[None, :]
        else:
            inside = along_v < v_left
            at_middle = tl.load(sums_at + (C // 2 - 1) * V + along_v, mask=inside, other=0.0)
            apart = (summed - tl.floor(at_middle)[None, :]).to(tl.float32)
            given = (vv * power_of_two(-apart)).to(dtype)
            below = tl.where(rows[:, None] > rows[None, :], pairs, 0.0)
            near = product(below.to(dtype), given, PRECISION)
            if dtype == tl.bfloat16:
                near += product(lost_in(dtype, below), given, PRECISION)
            out += near * power_of_two(apart)
        out += diagonal_of(pairs, rows) * vv
    else:
        if GATE == 1:
            summed = tl.load(sums_ptr + at * C + rows)
            between = (summed[:, None] - summed[None, :]).to(tl.float32)
            pairs *= power_of_two(tl.minimum(between, 0.0))
            out *= power_of_two(summed.to(tl.float32))[:, None]
        out += product(pairs.to(dtype), vv, PRECISION)
        if dtype == tl.bfloat16:
            out += product(lost_in(dtype, pairs), vv, PRECISION)
    o_at = o_ptr + token * V + i_v * BV
    store_tile(o_at, out, rows, along_v, H * V, left, v_left, EVEN_V)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def queries_kernel(
    asking_ptr, beta_ptr, sums_ptr, scores_ptr, c_ptr, states_ptr, dq_ptr,
    scale, T, H, K, V, chunks, do_b, do_t, do_h,
    C: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr,
    EVEN_V: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """asking is do and for GATE 2 e^G do; the scores w(t, s) do_t . v_s are of delta_solve.py."""
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
    along_v = tl.arange(0, BV)
    along_k = tl.arange(0, BK)
    k_left = K - i_k * BK
    token = (b * T + first) * H + h  # of [B, T, H]
    asking_at = asking_ptr + b * do_b + h * do_h + first * do_t
    states_at = states_ptr + at * V * K + i_k * BK

    grad = tl.zeros((C, BK), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        asking = load_tile(asking_at + begin, rows, along_v, do_t, left, v_left, EVEN_V).to(dtype)
        vs = load_tile(states_at + begin * K, along_v, along_k, K, v_left, k_left, EVEN_K)
        grad += product(asking, vs, PRECISION)
    if GATE == 1:
        summed = tl.load(sums_ptr + at * C + rows)
        grad *= power_of_two(summed.to(tl.float32))[:, None]
    scores = load_tile(scores_ptr + at * C * C, rows, tl.arange(0, C), C, C, C, True)
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    place = token * K + i_k * BK
    vc = load_tile(c_ptr + place, rows, along_k, H * K, left, k_left, EVEN_K)
    grad += product(scores, (vc * strength[:, None]).to(dtype), PRECISION)
    store_tile(dq_ptr + place, grad * scale, rows, along_k, H * K, left, k_left, EVEN_K)
