"""delta_solve.py's work for chunks with channels marked strong: decays between each two tokens."""

from __future__ import annotations

import triton
import triton.language as tl

from .delta_solve import solved_for
from .strong_gates import any_strong
from .tiles import load_tile, power_of_two, product, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def exact_solve_kernel(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, strong_ptr, z_ptr, scores_ptr,
    asking_ptr, giving_ptr, erasing_ptr,
    T, H, K, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, AT_ONCE: tl.constexpr,
    PRECISION: tl.constexpr, ASKED: tl.constexpr = True, system_ptr=None,
):  # fmt: skip
    """AT_ONCE chunks a program."""
    pid = tl.program_id(0)
    h = (pid % H).to(tl.int64)
    runs = tl.cdiv(chunks, AT_ONCE)
    run = (pid // H) % runs
    b = (pid // (H * runs)).to(tl.int64)
    blocks = tl.cdiv(K, 64)
    flags_at = strong_ptr + (b * H + h) * chunks * blocks
    if not any_strong(flags_at, run * AT_ONCE, chunks, blocks, AT_ONCE):
        return
    for turn in range(tl.minimum(AT_ONCE, chunks - run * AT_ONCE)):
        chunk = run * AT_ONCE + turn
        if any_strong(flags_at, chunk, chunks, blocks, 1):
            _solve_chunk(
                q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, flags_at, z_ptr, scores_ptr,
                asking_ptr, giving_ptr, erasing_ptr, T, H, K, chunks, b, h, chunk,
                q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h,
                C, BK, EVEN_K, PRECISION, ASKED, system_ptr,
            )  # fmt: skip


@triton.jit
def _solve_chunk(
    q_ptr, k_ptr, p_ptr, beta_ptr, sums_ptr, flags_at, z_ptr, scores_ptr,
    asking_ptr, giving_ptr, erasing_ptr, T, H, K, chunks, b, h, chunk,
    q_b, q_t, q_h, k_b, k_t, k_h, p_b, p_t, p_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
    ASKED: tl.constexpr, system_ptr,
):  # fmt: skip
    at = (b * H + h) * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    dtype = scores_ptr.dtype.element_ty
    rows = tl.arange(0, C)
    columns = tl.arange(0, BK)
    k_at = k_ptr + b * k_b + h * k_h + first * k_t
    p_at = p_ptr + b * p_b + h * p_h + first * p_t
    q_at = q_ptr + b * q_b + h * q_h + first * q_t
    token = (b * T + first) * H + h  # of [B, T, H]
    strength = tl.load(beta_ptr + token + rows * H, mask=rows < left, other=0.0)
    erased = tl.zeros((C, C), dtype=tl.float32)
    asked = tl.zeros((C, C), dtype=tl.float32)
    for begin in range(0, K, BK):
        k_left = K - begin
        place = token * K + begin
        sums_at = sums_ptr + at * C * K + begin
        summed = load_tile(sums_at, rows, columns, K, C, k_left, EVEN_K)
        inside = columns < k_left
        middle = tl.floor(tl.load(sums_at + (C // 2 - 1) * K + columns, mask=inside, other=0.0))
        total = tl.load(sums_at + (C - 1) * K + columns, mask=inside, other=0.0)
        vk = load_tile(k_at + begin, rows, columns, k_t, left, k_left, EVEN_K).to(dtype)
        vp = load_tile(p_at + begin, rows, columns, p_t, left, k_left, EVEN_K).to(dtype)
        if ASKED:
            vq = load_tile(q_at + begin, rows, columns, q_t, left, k_left, EVEN_K).to(dtype)
        if tl.load(flags_at + chunk * tl.cdiv(K, 64) + begin // 64) != 0:
            from_start = power_of_two(summed.to(tl.float32))
            till_end = power_of_two((total[None, :] - summed).to(tl.float32))
            x = vk * till_end
            store_tile(giving_ptr + place, x, rows, columns, H * K, left, k_left, EVEN_K)
            x = vp * from_start
            store_tile(erasing_ptr + place, x, rows, columns, H * K, left, k_left, EVEN_K)
            if ASKED:
                x = vq * from_start
                store_tile(asking_ptr + place, x, rows, columns, H * K, left, k_left, EVEN_K)
            for s in range(C):
                g_s = tl.sum(tl.where(rows[:, None] == s, summed, 0.0), 0)
                since = tl.minimum((summed - g_s[None, :]).to(tl.float32), 0.0)
                weights = tl.where(rows[:, None] >= s, power_of_two(since), 0.0)
                weights *= row_of(vk, rows, s)[None, :]
                column = rows[None, :] == s
                erased += tl.where(column, tl.sum(vp * weights, 1)[:, None], 0.0)
                if ASKED:
                    asked += tl.where(column, tl.sum(vq * weights, 1)[:, None], 0.0)
        else:
            apart = (summed - middle[None, :]).to(tl.float32)
            given = tl.trans((vk * power_of_two(-apart)).to(dtype))
            reading = power_of_two(apart)
            erased += product((vp * reading).to(dtype), given, PRECISION)
            if ASKED:
                asked += product((vq * reading).to(dtype), given, PRECISION)
    place = at * C * C + rows[:, None] * C + rows[None, :]
    if ASKED:
        asked = tl.where(rows[:, None] >= rows[None, :], asked, 0.0)
        tl.store(scores_ptr + place, asked.to(dtype))
    erased = tl.where(rows[:, None] > rows[None, :], erased, 0.0)
    if system_ptr is not None:
        tl.store(system_ptr + place, erased.to(dtype))
    z = solved_for(dtype, erased, strength, C, PRECISION)
    tl.store(z_ptr + place, z.to(z_ptr.dtype.element_ty))
