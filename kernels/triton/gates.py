"""Before the sweeps: log decays summed in each chunk, and a channel's put into queries and keys.

With G the base-2 log decays summed from a chunk's start and M the sum at its middle rounded down,
the decay between a reader t and a writer s is 2^(G_t - M) 2^(M - G_s), so
    asked_t = q_t 2^(G_t - M)    given_s = k_s 2^(M - G_s)
need no gate between them. M depends on later tokens than t, but as a whole number it only moves
exponents: how asked and given round to bfloat16 does not depend on what comes after t. Where an
exponent would be too large for float32, the sequence is marked `strong`, and its factors are not
used.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strong_gates import too_far
from .tiles import LOG2_E, LOWEST_LOG_DECAY, load_tile, power_of_two, row_of, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def sum_gates_kernel(
    g_ptr, sums_ptr, T, H, chunks, sums_b, sums_h,
    C: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """From a head's g [B, T, H] to sums [B, H, chunks * C], which repeat the last after T."""
    blocks = tl.cdiv(H, BH)
    pid = tl.program_id(0)
    heads = (pid % blocks) * BH + tl.arange(0, BH)
    chunk = (pid // blocks) % chunks
    batch = (pid // (blocks * chunks)).to(tl.int64)
    tokens = chunk * C + tl.arange(0, C)
    mask = (tokens[:, None] < T) & (heads[None, :] < H)
    place = (batch * T + tokens[:, None]) * H + heads[None, :]
    g = tl.load(g_ptr + place, mask=mask, other=0.0).to(sums_ptr.dtype.element_ty)
    sums = tl.cumsum(tl.maximum(g, LOWEST_LOG_DECAY) * LOG2_E, 0)
    at = sums_ptr + batch * sums_b + heads[None, :].to(tl.int64) * sums_h + tokens[:, None]
    tl.store(at, sums, mask=heads[None, :] < H)


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def factor_gates_kernel(
    q_ptr, k_ptr, g_ptr, asked_ptr, given_ptr, shifted_ptr, middle_ptr, total_ptr, strong_ptr,
    T, H, K, chunks, q_b, q_t, q_h, k_b, k_t, k_h,
    C: tl.constexpr, BK: tl.constexpr, EVEN_K: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """asked and given, M and the chunk's whole sum; for the backward pass (KEEP) G - M too."""
    blocks = tl.cdiv(K, BK)
    pid = tl.program_id(0)
    block = pid % blocks
    h = ((pid // blocks) % H).to(tl.int64)
    chunk = (pid // (blocks * H)) % chunks
    b = (pid // (blocks * H * chunks)).to(tl.int64)
    first = (chunk * C).to(tl.int64)
    left = T - chunk * C
    k_left = K - block * BK
    rows = tl.arange(0, C)
    keys = tl.arange(0, BK)
    flat = ((b * T + first) * H + h) * K + block * BK
    g = load_tile(g_ptr + flat, rows, keys, H * K, left, k_left, EVEN_K)
    sums = tl.cumsum(tl.maximum(g.to(tl.float32), LOWEST_LOG_DECAY) * LOG2_E, 0)
    middle = tl.floor(row_of(sums, rows, C // 2 - 1))
    total = row_of(sums, rows, C - 1)
    shifted = sums - middle[None, :]
    tl.store(strong_ptr + b * H + h, 1, mask=too_far(shifted, middle))
    ends = ((b * chunks + chunk) * H + h) * K + block * BK + keys
    tl.store(middle_ptr + ends, middle, mask=keys < k_left)
    tl.store(total_ptr + ends, total, mask=keys < k_left)
    q_at = q_ptr + b * q_b + first * q_t + h * q_h + block * BK
    k_at = k_ptr + b * k_b + first * k_t + h * k_h + block * BK
    q = load_tile(q_at, rows, keys, q_t, left, k_left, EVEN_K)
    store_tile(asked_ptr + flat, q * power_of_two(shifted), rows, keys, H * K, left, k_left, EVEN_K)
    k = load_tile(k_at, rows, keys, k_t, left, k_left, EVEN_K)
    store_tile(
        given_ptr + flat, k * power_of_two(-shifted), rows, keys, H * K, left, k_left, EVEN_K
    )
    if KEEP:
        store_tile(shifted_ptr + flat, shifted, rows, keys, H * K, left, k_left, EVEN_K)
