"""The systems of `chunk_dplr`, one for each chunk: how what its tokens read depends on each other.

With G the log decays summed from the chunk's start, token t finds under a, of the state S before
the chunk and of what was written in it,
    c_t = e^(G_{t-1}) a_t S + (N v)_t + (A c)_t
    A[t, s], N[t, s] = e^(G_{t-1} - G_s) a_t . (b_s, k_s) for s < t
so that c = W S + Y v, with Z = (I - A)^-1 A strictly lower and, of dplr_factor.py's sought rows,
    W = sought + Z sought          Y = N + Z N
The backward pass takes (I - A)^-T d as d + Z^T d.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .delta_solve import solved_for
from .strong_gates import any_strong
from .tiles import load_tile, power_of_two, product, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def solve_kernel(
    q_ptr, k_ptr, a_ptr, b_ptr, sums_ptr, strong_ptr,
    asked_ptr, sought_ptr, given_k_ptr, given_b_ptr,
    scores_k_ptr, scores_b_ptr, z_ptr, y_ptr, reading_ptr,
    T, H, K, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, EXACT: tl.constexpr,
    AT_ONCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Z, Y and W of each chunk, and its scores e^(G_t - G_s) q_t . (b_s, k_s).

    EXACT for the launch that takes over chunks with strong channels, AT_ONCE of them a program.
    """
    pid = tl.program_id(0)
    h = (pid % H).to(tl.int64)  # heads before chunks, as in dplr_factor.py
    runs = tl.cdiv(chunks, AT_ONCE)
    run = (pid // H) % runs
    b = (pid // (H * runs)).to(tl.int64)
    blocks = tl.cdiv(K, 64)
    flags_at = strong_ptr + (b * H + h) * chunks * blocks
    if EXACT and not any_strong(flags_at, run * AT_ONCE, chunks, blocks, AT_ONCE):
        return
    for turn in range(tl.minimum(AT_ONCE, chunks - run * AT_ONCE)):
        chunk = run * AT_ONCE + turn
        is_strong = any_strong(flags_at, chunk, chunks, blocks, 1)
        if is_strong == EXACT:
            _solve_chunk(
                q_ptr, k_ptr, a_ptr, b_ptr, sums_ptr, strong_ptr,
                asked_ptr, sought_ptr, given_k_ptr, given_b_ptr,
                scores_k_ptr, scores_b_ptr, z_ptr, y_ptr, reading_ptr,
                T, H, K, chunks, b, h, chunk,
                q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
                C, BK, EVEN_K, EXACT, PRECISION,
            )  # fmt: skip


@triton.jit
def _solve_chunk(
    q_ptr, k_ptr, a_ptr, b_ptr, sums_ptr, strong_ptr,
    asked_ptr, sought_ptr, given_k_ptr, given_b_ptr,
    scores_k_ptr, scores_b_ptr, z_ptr, y_ptr, reading_ptr,
    T, H, K, chunks, b, h, chunk,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    at = (b * H + h) * chunks + chunk
    blocks = tl.cdiv(K, 64)
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = z_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    keys = tl.arange(0, BK)
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    a_at = a_ptr + b * a_b + h * a_h + first * a_t
    b_at = b_ptr + b * b_b + h * b_h + first * b_t
    sums_at = sums_ptr + at * C * K
    place = ((b * T + first) * H + h) * K  # of [B, T, H, K]
    square = at * C * C + rows[:, None] * C + rows[None, :]

    # One reader after the other, since four tiles of scores fill the registers.
    of_k = tl.zeros((C, C), dtype=tl.float32)
    of_b = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        if EXACT and tl.load(strong_ptr + at * blocks + begin // 64) != 0:
            reach = load_tile(sums_at + begin, rows, keys, K, C, k_left, EVEN_K)
            x = load_tile(q_at + begin, rows, keys, q_t, left, k_left, EVEN_K).to(dtype)
            of_k, of_b = _seen(
                x, reach, reach, k_at + begin, k_t, b_at + begin, b_t, left, k_left, of_k, of_b,
                C, BK, EVEN_K,
            )  # fmt: skip
        else:
            x = load_tile(asked_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            given = load_tile(given_k_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            of_k += product(x, tl.trans(given), PRECISION)
            given = load_tile(given_b_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            of_b += product(x, tl.trans(given), PRECISION)
    reads = rows[:, None] >= rows[None, :]
    tl.store(scores_k_ptr + square, tl.where(reads, of_k, 0.0).to(dtype))
    tl.store(scores_b_ptr + square, tl.where(reads, of_b, 0.0).to(dtype))

    of_k = tl.zeros((C, C), dtype=tl.float32)
    of_b = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        if EXACT and tl.load(strong_ptr + at * blocks + begin // 64) != 0:
            sums = load_tile(sums_at + begin, rows, keys, K, C, k_left, EVEN_K)
            reach = tl.load(
                sums_at + begin + (rows - 1)[:, None] * K + keys[None, :],
                mask=(rows[:, None] > 0) & (keys[None, :] < k_left), other=0.0,
            )  # fmt: skip
            x = load_tile(a_at + begin, rows, keys, a_t, left, k_left, EVEN_K).to(dtype)
            of_k, of_b = _seen(
                x, reach, sums, k_at + begin, k_t, b_at + begin, b_t, left, k_left, of_k, of_b,
                C, BK, EVEN_K,
            )  # fmt: skip
        else:
            x = load_tile(sought_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            given = load_tile(given_k_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            of_k += product(x, tl.trans(given), PRECISION)
            given = load_tile(given_b_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
            of_b += product(x, tl.trans(given), PRECISION)
    below = rows[:, None] > rows[None, :]
    known = tl.where(below, of_k, 0.0)
    system = tl.where(below, of_b, 0.0)
    ones = tl.full((C,), 1.0, dtype=tl.float32)
    z = -solved_for(dtype, -system, ones, C, PRECISION)
    tl.store(z_ptr + square, z.to(dtype))
    y = known + product(z, known, PRECISION)
    tl.store(y_ptr + square, y.to(dtype))
    for begin in range(0, K, BK):
        k_left = K - begin
        x = load_tile(sought_ptr + place + begin, rows, keys, H * K, left, k_left, EVEN_K)
        x = x.to(tl.float32)
        x += product(z, x, PRECISION)
        store_tile(reading_ptr + place + begin, x, rows, keys, H * K, left, k_left, EVEN_K)


@triton.jit
def _seen(
    x, reach, sums, k_at, k_t, b_at, b_t, left, k_left, of_k, of_b,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Adds 2^(reach_t - G_s) x_t . k_s and the same of b; right where no exponent is above 0."""
    rows = tl.arange(0, C)
    keys = tl.arange(0, BK)
    k = load_tile(k_at, rows, keys, k_t, left, k_left, EVEN_K)
    b = load_tile(b_at, rows, keys, b_t, left, k_left, EVEN_K)
    for s in range(C):
        g_s = tl.sum(tl.where(rows[:, None] == s, sums, 0.0), 0)
        since = tl.minimum((reach - g_s[None, :]).to(tl.float32), 0.0)
        weights = x * power_of_two(since)
        column = rows[None, :] == s
        from_k = tl.sum(weights * row_of(k, rows, s)[None, :], 1)
        from_b = tl.sum(weights * row_of(b, rows, s)[None, :], 1)
        of_k += tl.where(column, from_k[:, None], 0.0)
        of_b += tl.where(column, from_b[:, None], 0.0)
    return of_k, of_b
