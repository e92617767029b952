"""Before `chunk_dplr`'s other kernels: decays are put into queries, keys and a's rows.

With G the base-2 log decays summed from a chunk's start and M the sum at its middle rounded down,
the decay between a reader t and a writer s is 2^(G_t - M) 2^(M - G_s), so
    asked_t = q_t 2^(G_t - M)       given_s = k_s 2^(M - G_s), and b_s
    sought_t = a_t 2^(G_{t-1} - M)
meet as they are, in a chunk's pairs, and in its states where the state before the chunk comes as
2^M S and the one after it as 2^(M - G_end) S'. That M is a whole number keeps rounding apart from
later tokens (gates.py). Where 2^(G - M) would be too large for float32, the 64 channels are marked
`strong`: their readers have 2^G and their writers 2^(G_end - G), which meet in states alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gates import LOWEST_LOG_DECAY
from .strong_gates import too_far
from .tiles import LOG2_E, load_tile, power_of_two, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def factor_kernel(
    q_ptr, k_ptr, a_ptr, b_ptr, g_ptr,
    sums_ptr, strong_ptr, ends_ptr, asked_ptr, sought_ptr, given_k_ptr, given_b_ptr,
    T, H, K, chunks,
    q_b, q_t, q_h, k_b, k_t, k_h, a_b, a_t, a_h, b_b, b_t, b_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Also G, and as `ends` [3, K] what a chunk's state is multiplied by, as logs: before it is
    read, before it is written to, and then.
    """
    blocks = tl.cdiv(K, BK)
    pid = tl.program_id(0)
    block = pid % blocks
    # Heads before chunks: a token's heads are neighbours in memory.
    h = ((pid // blocks) % H).to(tl.int64)
    chunk = (pid // (blocks * H)) % chunks
    b = (pid // (blocks * H * chunks)).to(tl.int64)
    at = (b * H + h) * chunks + chunk
    first = chunk.to(tl.int64) * C
    left = T - chunk * C
    begin = block * BK
    k_left = K - begin
    rows = tl.arange(0, C)
    keys = tl.arange(0, BK)
    inside = keys < k_left
    place = ((b * T + first) * H + h) * K + begin  # of [B, T, H, K]
    stride = H * K
    g = load_tile(g_ptr + place, rows, keys, stride, left, k_left, EVEN_K)
    g = tl.maximum(g.to(sums_ptr.dtype.element_ty), LOWEST_LOG_DECAY) * LOG2_E
    sums = tl.cumsum(g, 0)
    store_tile(sums_ptr + at * C * K + begin, sums, rows, keys, K, C, k_left, EVEN_K)
    middle = tl.floor(tl.sum(tl.where(rows[:, None] == C // 2 - 1, sums, 0.0), 0))
    total = tl.sum(tl.where(rows[:, None] == C - 1, sums, 0.0), 0)
    apart = (sums - middle[None, :]).to(tl.float32)
    is_strong = too_far(apart, middle)
    tl.store(strong_ptr + at * tl.cdiv(K, 64) + begin // 64, is_strong.to(tl.int32))
    before = tl.where(is_strong, 0.0, middle)
    written = tl.where(is_strong, total, middle)
    ends_at = ends_ptr + at * 3 * K + begin + keys
    tl.store(ends_at, before.to(tl.float32), mask=inside)
    tl.store(ends_at + K, (written - before).to(tl.float32), mask=inside)
    tl.store(ends_at + 2 * K, (total - written).to(tl.float32), mask=inside)

    q_at = q_ptr + b * q_b + h * q_h + first * q_t + begin
    a_at = a_ptr + b * a_b + h * a_h + first * a_t + begin
    reading = power_of_two((sums - before[None, :]).to(tl.float32))
    x = load_tile(q_at, rows, keys, q_t, left, k_left, EVEN_K) * reading
    store_tile(asked_ptr + place, x, rows, keys, stride, left, k_left, EVEN_K)
    reading = power_of_two((sums - g - before[None, :]).to(tl.float32))
    x = load_tile(a_at, rows, keys, a_t, left, k_left, EVEN_K) * reading
    store_tile(sought_ptr + place, x, rows, keys, stride, left, k_left, EVEN_K)
    k_at = k_ptr + b * k_b + h * k_h + first * k_t + begin
    b_at = b_ptr + b * b_b + h * b_h + first * b_t + begin
    giving = power_of_two((written[None, :] - sums).to(tl.float32))
    x = load_tile(k_at, rows, keys, k_t, left, k_left, EVEN_K) * giving
    store_tile(given_k_ptr + place, x, rows, keys, stride, left, k_left, EVEN_K)
    x = load_tile(b_at, rows, keys, b_t, left, k_left, EVEN_K) * giving
    store_tile(given_b_ptr + place, x, rows, keys, stride, left, k_left, EVEN_K)
