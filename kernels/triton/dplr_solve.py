"""The systems of `chunk_dplr`, one for each chunk: how what its tokens read depends on each other.

With G the log decays summed from the chunk's start and E_t = G_{t-1} those before t's own, token t
finds under a, of the state S before the chunk and of what was written in it,
    c = e^E a S + N v + A c        A[t, s], N[t, s] = e^(E_t - G_s) a_t . (b_s, k_s) for s < t
so that c = W S + Y v, with Z = (I - A)^-1 A strictly lower and
    W = e^E a + Z e^E a            Y = N + Z N
The backward pass takes (I - A)^-T d as d + Z^T d.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .delta_solve import solved_for
from .gates import FARTHEST, LOWEST_LOG_DECAY
from .tiles import LOG2_E, load_tile, power_of_two, product, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def solve_kernel(
    q_ptr, k_ptr, a_ptr, b_ptr, g_ptr, sums_ptr, strong_ptr, scores_k_ptr, scores_b_ptr,
    z_ptr, y_ptr, asking_ptr, reading_ptr, giving_k_ptr, giving_b_ptr,
    T, H, K, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Z and Y of each chunk, its scores e^(G_t - G_s) q_t . (b_s, k_s) and G, in base 2.

    Also what q asks of the state before the chunk, e^G q, what is read of it, W, what k and b give
    to the next, e^(G_end - G) k and b, and which channels decay too fast for the factors
    2^(G_t - M) 2^(M - G_s), with M the middle's sum rounded down as in gates.py.
    """
    pid = tl.program_id(0)
    chunk = pid % chunks
    bh = (pid // chunks).to(tl.int64)
    b = bh // H
    h = bh % H
    at = bh * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = z_ptr.dtype.element_ty
    exact = sums_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    columns = tl.arange(0, BK)
    below = rows[:, None] > rows[None, :]
    reads = rows[:, None] >= rows[None, :]
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    a_at = a_ptr + b * a_b + h * a_h + first * a_t
    b_at = b_ptr + b * b_b + h * b_h + first * b_t
    token = ((b * T + first) * H + h) * K  # of [B, T, H, K]
    square = at * C * C + rows[:, None] * C + rows[None, :]

    asked_k = tl.zeros((C, C), dtype=tl.float32)
    asked_b = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        place = token + begin
        vq = load_tile(q_at + begin, rows, columns, q_t, left, k_left, EVEN_K).to(dtype)
        vk = load_tile(k_at + begin, rows, columns, k_t, left, k_left, EVEN_K).to(dtype)
        vb = load_tile(b_at + begin, rows, columns, b_t, left, k_left, EVEN_K).to(dtype)
        g = _gates(g_ptr + place, rows, columns, H * K, left, k_left, EVEN_K, exact)
        summed = tl.cumsum(g, 0)
        store_tile(sums_ptr + at * C * K + begin, summed, rows, columns, K, C, k_left, EVEN_K)
        total = tl.sum(tl.where(rows[:, None] == C - 1, summed, 0.0), 0)
        asking = vq * power_of_two(summed.to(tl.float32))
        store_tile(asking_ptr + place, asking, rows, columns, H * K, left, k_left, EVEN_K)
        till_end = power_of_two((total[None, :] - summed).to(tl.float32))
        store_tile(giving_k_ptr + place, vk * till_end, rows, columns, H * K, left, k_left, EVEN_K)
        store_tile(giving_b_ptr + place, vb * till_end, rows, columns, H * K, left, k_left, EVEN_K)
        is_strong = _is_strong(summed, rows, C)
        tl.store(strong_ptr + at * tl.cdiv(K, 64) + begin // 64, is_strong.to(tl.int32))
        of_k, of_b = _seen(vq, summed, vk, vb, summed, is_strong, C, dtype, PRECISION)
        asked_k += of_k
        asked_b += of_b
    tl.store(scores_k_ptr + square, tl.where(reads, asked_k, 0.0).to(dtype))
    tl.store(scores_b_ptr + square, tl.where(reads, asked_b, 0.0).to(dtype))

    # A second pass over the channels, since four tiles of scores do not fit into the registers.
    known = tl.zeros((C, C), dtype=tl.float32)
    system = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        va = load_tile(a_at + begin, rows, columns, a_t, left, k_left, EVEN_K).to(dtype)
        vk = load_tile(k_at + begin, rows, columns, k_t, left, k_left, EVEN_K).to(dtype)
        vb = load_tile(b_at + begin, rows, columns, b_t, left, k_left, EVEN_K).to(dtype)
        g = _gates(g_ptr + token + begin, rows, columns, H * K, left, k_left, EVEN_K, exact)
        summed = tl.cumsum(g, 0)
        is_strong = _is_strong(summed, rows, C)
        of_k, of_b = _seen(va, summed - g, vk, vb, summed, is_strong, C, dtype, PRECISION)
        known += of_k
        system += of_b
    known = tl.where(below, known, 0.0)
    system = tl.where(below, system, 0.0)
    ones = tl.full((C,), 1.0, dtype=tl.float32)
    z = -solved_for(dtype, -system, ones, C, PRECISION)
    tl.store(z_ptr + square, z.to(dtype))
    y = known + product(z, known, PRECISION)
    tl.store(y_ptr + square, y.to(dtype))

    for begin in range(0, K, BK):
        k_left = K - begin
        place = token + begin
        va = load_tile(a_at + begin, rows, columns, a_t, left, k_left, EVEN_K).to(dtype)
        g = _gates(g_ptr + place, rows, columns, H * K, left, k_left, EVEN_K, exact)
        reading = va * power_of_two((tl.cumsum(g, 0) - g).to(tl.float32))
        reading += product(z, reading, PRECISION)
        store_tile(reading_ptr + place, reading, rows, columns, H * K, left, k_left, EVEN_K)


@triton.jit
def _gates(
    g_at, rows, columns, stride, left, k_left, EVEN_K: tl.constexpr, EXACT: tl.constexpr
):  # fmt: skip
    """Log decays in base 2."""
    g = load_tile(g_at, rows, columns, stride, left, k_left, EVEN_K)
    return tl.maximum(g.to(EXACT), LOWEST_LOG_DECAY) * LOG2_E


@triton.jit
def _is_strong(summed, rows, C: tl.constexpr):
    middle = tl.floor(tl.sum(tl.where(rows[:, None] == C // 2 - 1, summed, 0.0), 0))
    apart = (summed - middle[None, :]).to(tl.float32)
    return tl.max(tl.max(tl.abs(apart), 1), 0) > FARTHEST


@triton.jit
def _seen(
    x, reach, k, b, summed, is_strong, C: tl.constexpr, OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """2^(reach_t - G_s) x_t . k_s and the same of b, [C, C]; right where no exponent is above 0."""
    rows = tl.arange(0, C)
    of_k = tl.zeros((C, C), dtype=tl.float32)
    of_b = tl.zeros((C, C), dtype=tl.float32)
    if is_strong:
        for s in range(C):
            g_s = tl.sum(tl.where(rows[:, None] == s, summed, 0.0), 0)
            since = tl.minimum((reach - g_s[None, :]).to(tl.float32), 0.0)
            weights = x * power_of_two(since)
            column = rows[None, :] == s
            from_k = tl.sum(weights * row_of(k, rows, s)[None, :], 1)
            from_b = tl.sum(weights * row_of(b, rows, s)[None, :], 1)
            of_k += tl.where(column, from_k[:, None], 0.0)
            of_b += tl.where(column, from_b[:, None], 0.0)
    else:
        middle = tl.floor(tl.sum(tl.where(rows[:, None] == C // 2 - 1, summed, 0.0), 0))
        read = (x * power_of_two((reach - middle[None, :]).to(tl.float32))).to(OPERANDS)
        growth = power_of_two((middle[None, :] - summed).to(tl.float32))
        of_k = product(read, tl.trans((k * growth).to(OPERANDS)), PRECISION)
        of_b = product(read, tl.trans((b * growth).to(OPERANDS)), PRECISION)
    return of_k, of_b
