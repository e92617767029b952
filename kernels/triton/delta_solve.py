"""The delta rule's systems, one for each chunk: how its corrections depend on each other.

With p the erase keys, b the strengths, w(t, s) the decay between two tokens and
    A[t, s] = w(t, s) p_t . k_s for s < t        (I + A diag(b)) c = r
where r is what each token lacks for the state before the chunk, c for all earlier tokens' writes
b c too. The matrix kept is Z = (I + A diag(b))^-1 A: then c = r - Z (b r), and of a gradient d of
the writes, d - Z^T (b d) is that of b c with all that follows from it. Nothing divides by b.
The inverse grows by joining blocks on the diagonal: inverse - inverse L inverse.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gates import LOWEST_LOG_DECAY
from .strong_gates import too_far
from .tiles import LOG2_E, load_tile, power_of_two, product, row_of, store_tile


@triton.jit
def solved(system, strength, C: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr):
    """Z = (I + A diag(b))^-1 A of a strictly lower A [C, C]; C is 32 or 64."""
    rows = tl.arange(0, C)
    diagonal = tl.where(rows[:, None] == rows[None, :], 1.0, 0.0)
    lower = system * strength[None, :]
    inverse = diagonal - tl.where(_joins(1, C), lower, 0.0)
    inverse = _joined(inverse, lower, 2, C, OPERANDS, PRECISION)
    inverse = _joined(inverse, lower, 4, C, OPERANDS, PRECISION)
    inverse = _joined(inverse, lower, 8, C, OPERANDS, PRECISION)
    inverse = _joined(inverse, lower, 16, C, OPERANDS, PRECISION)
    if C > 32:
        inverse = _joined(inverse, lower, 32, C, OPERANDS, PRECISION)
    return product(inverse.to(OPERANDS), system.to(OPERANDS), PRECISION)


@triton.jit
def solved_for(dtype: tl.constexpr, system, strength, C: tl.constexpr, PRECISION: tl.constexpr):
    """Z where results are rounded to dtype."""
    if dtype == tl.bfloat16:
        # Float16 is as exact as tf32 and twice as fast; it overflows for keys far from unit norm.
        rows = tl.arange(0, C)
        z = solved(system, strength, C, tl.float16, PRECISION)
        if tl.sum(tl.sum(tl.where(tl.abs(z) < 4096.0, 0, 1), 1), 0) > 0:
            z = system
            for t in range(1, C):
                here = rows[:, None] == t
                row = row_of(system, rows, t) * strength
                taken = tl.sum(tl.expand_dims(row, 1) * z, 0)
                z = tl.where(here, system - taken[None, :], z)
    else:
        z = solved(system, strength, C, tl.float32, PRECISION)
    return z


@triton.jit
def _joins(SIZE: tl.constexpr, C: tl.constexpr):
    """Where two neighbouring blocks of SIZE on the diagonal meet."""
    block = tl.arange(0, C) // SIZE
    return (block[:, None] // 2 == block[None, :] // 2) & (block[:, None] != block[None, :])


@triton.jit
def _joined(
    inverse, lower, SIZE: tl.constexpr, C: tl.constexpr, OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """From inverses of the diagonal's blocks of SIZE to those of blocks twice as large."""
    between = tl.where(_joins(SIZE, C), lower, 0.0).to(OPERANDS)
    operand = inverse.to(OPERANDS)
    through = product(between, operand, PRECISION).to(OPERANDS)
    return inverse - product(operand, through, PRECISION)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def solve_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, g_ptr, sums_ptr, strong_ptr, z_ptr, scores_ptr,
    asking_ptr, giving_ptr, erasing_ptr,
    T, H, K, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h,
    C: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr, OWN_KEY: tl.constexpr,
    EVEN_K: tl.constexpr, PRECISION: tl.constexpr, ASKED: tl.constexpr = True, system_ptr=None,
):  # fmt: skip
    """Z of each chunk, its scores w(t, s) q_t . k_s and the gates' sums G from its start.

    GATE 2 also writes what q asks of the state before the chunk, e^G q, what p erases of it, e^G p,
    what k gives to the next, e^(G_end - G) k, and which channels decay too fast for the factors
    2^(G_t - M) 2^(M - G_s) of w(t, s), with M the middle's sum rounded down as in gates.py: all of
    a chunk with such channels is made anew by delta_exact_solve.py.
    Without ASKED nothing of q is read or written. With a system_ptr A is written too. Operands have
    the scores' dtype.
    """
    pid = tl.program_id(0)
    chunk = pid % chunks
    bh = (pid // chunks).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = scores_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    columns = tl.arange(0, BK)
    below = rows[:, None] > rows[None, :]
    reads = rows[:, None] >= rows[None, :]
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    p_at = p_ptr + b * p_b + h * p_h + first * p_t
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    token = (b * T + first) * H + h  # of [B, T, H]
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)

    erased = tl.zeros((C, C), dtype=tl.float32)
    asked = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        if ASKED:
            vq = load_tile(q_at + begin, rows, columns, q_t, left, k_left, EVEN_K).to(dtype)
        vk = load_tile(k_at + begin, rows, columns, k_t, left, k_left, EVEN_K).to(dtype)
        if OWN_KEY:
            vp = vk
        else:
            vp = load_tile(p_at + begin, rows, columns, p_t, left, k_left, EVEN_K).to(dtype)
        if GATE < 2:
            erased += product(vp, tl.trans(vk), PRECISION)
            if ASKED:
                asked += product(vq, tl.trans(vk), PRECISION)
        else:
            place = token * K + begin
            g = load_tile(g_ptr + place, rows, columns, H * K, left, k_left, EVEN_K)
            g = tl.maximum(g.to(sums_ptr.dtype.element_ty), LOWEST_LOG_DECAY)
            summed = tl.cumsum(g * LOG2_E, 0)
            sums_at = sums_ptr + at * C * K + begin
            store_tile(sums_at, summed, rows, columns, K, C, k_left, EVEN_K)
            middle = tl.floor(tl.sum(tl.where(rows[:, None] == C // 2 - 1, summed, 0.0), 0))
            total = tl.sum(tl.where(rows[:, None] == C - 1, summed, 0.0), 0)
            apart = (summed - middle[None, :]).to(tl.float32)
            is_strong = too_far(apart, middle)
            tl.store(strong_ptr + at * tl.cdiv(K, 64) + begin // 64, is_strong.to(tl.int32))
            reading = power_of_two(apart)
            since_start = power_of_two(middle.to(tl.float32))[None, :]
            giving = vk * power_of_two(-apart)
            given = tl.trans(giving.to(dtype))
            giving *= power_of_two((total - middle).to(tl.float32))[None, :]
            store_tile(giving_ptr + place, giving, rows, columns, H * K, left, k_left, EVEN_K)
            seeking = vp * reading
            erased += product(seeking.to(dtype), given, PRECISION)
            seeking *= since_start
            store_tile(erasing_ptr + place, seeking, rows, columns, H * K, left, k_left, EVEN_K)
            if ASKED:
                seeking = vq * reading
                asked += product(seeking.to(dtype), given, PRECISION)
                seeking *= since_start
                store_tile(asking_ptr + place, seeking, rows, columns, H * K, left, k_left, EVEN_K)
    if GATE == 1:
        g = tl.load(g_ptr + token + rows * H, mask=rows < left, other=0.0)
        g = tl.maximum(g.to(sums_ptr.dtype.element_ty), LOWEST_LOG_DECAY)
        summed = tl.cumsum(g * LOG2_E, 0)
        tl.store(sums_ptr + at * C + rows, summed)
        between = (summed[:, None] - summed[None, :]).to(tl.float32)
        decay = power_of_two(tl.where(reads, between, float("-inf")))
        erased *= decay
        asked *= decay
    erased = tl.where(below, erased, 0.0)
    place = at * C * C + rows[:, None] * C + rows[None, :]
    if ASKED:
        tl.store(scores_ptr + place, tl.where(reads, asked, 0.0).to(dtype))
    if system_ptr is not None:
        tl.store(system_ptr + place, erased.to(dtype))
    z = solved_for(dtype, erased, strength, C, PRECISION)
    tl.store(z_ptr + place, z.to(z_ptr.dtype.element_ty))
