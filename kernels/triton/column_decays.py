"""Decays of a state's columns, within a chunk and across it.

With H a column's base-2 log decays summed from the chunk's start, what token s writes has decayed
by 2^(H_t - H_s) where t > s reads it: another factor for each column, so no product of matrices has
it in itself. Blocks of 1, 2, 4, ... tokens are joined two by two, as in delta_solve.py: t and s
meet where their blocks are joined, and with e the last token of the earlier of the two
    2^(H_t - H_s) = 2^(H_t - H_e) 2^(H_e - H_s)
is a factor for the row that reads and one for the row that is read. Neither is above 1, so no gate
is too strong; and a token's pair with itself, which no gate divides, is in no block.
Loops over the blocks' sizes stay loops: unrolled, their loads came first and 1 to 3 KiB of them a
thread did not fit into registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .gates import LOWEST_LOG_DECAY
from .tiles import LOG2_E, load_tile, power_of_two, product, store_tile


@triton.jit(do_not_specialize=["T", "H", "chunks"])
def sum_columns_kernel(
    h_ptr, columns_ptr, T, H, V, chunks,
    C: tl.constexpr, BV: tl.constexpr, EVEN_V: tl.constexpr,
):  # fmt: skip
    """From log decays [B, T, H, V] to sums [B, H, chunks, C, V], which repeat the last after T."""
    pid = tl.program_id(0)
    parts = tl.cdiv(V, BV)
    i_v = pid % parts
    h = ((pid // parts) % H).to(tl.int64)
    chunk = (pid // (parts * H)) % chunks
    b = (pid // (parts * H * chunks)).to(tl.int64)
    first = chunk.to(tl.int64) * C
    rows = tl.arange(0, C)
    along_v = tl.arange(0, BV)
    v_left = V - i_v * BV
    from_at = h_ptr + ((b * T + first) * H + h) * V + i_v * BV
    to_at = columns_ptr + ((b * H + h) * chunks + chunk) * C * V + i_v * BV
    g = load_tile(from_at, rows, along_v, H * V, T - chunk * C, v_left, EVEN_V)
    g = tl.maximum(g.to(columns_ptr.dtype.element_ty), LOWEST_LOG_DECAY)
    store_tile(to_at, tl.cumsum(g * LOG2_E, 0), rows, along_v, V, C, v_left, EVEN_V)


@triton.jit
def since_start(columns_at, along_v, V, v_left, C: tl.constexpr, EVEN_V: tl.constexpr):
    """2^H, [C, BV]."""
    rows = tl.arange(0, C)
    summed = load_tile(columns_at, rows, along_v, V, C, v_left, EVEN_V)
    return power_of_two(summed.to(tl.float32))


@triton.jit
def till_end(columns_at, along_v, V, v_left, C: tl.constexpr, EVEN_V: tl.constexpr):
    """2^(H_end - H), [C, BV]."""
    rows = tl.arange(0, C)
    summed = load_tile(columns_at, rows, along_v, V, C, v_left, EVEN_V)
    total = tl.load(columns_at + (C - 1) * V + along_v, mask=along_v < v_left, other=0.0)
    return power_of_two((total[None, :] - summed).to(tl.float32))


@triton.jit
def across(columns_at, along_v, V, v_left, C: tl.constexpr):
    """2^H_end, [BV]."""
    total = tl.load(columns_at + (C - 1) * V + along_v, mask=along_v < v_left, other=0.0)
    return power_of_two(total.to(tl.float32))


@triton.jit
def through_decays(
    pairs, x, columns_at, along_v, V, v_left, C: tl.constexpr, EVEN_V: tl.constexpr,
    BACK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sum_s pairs[t, s] 2^(H_t - H_s) x[s] for s < t, [C, BV]; BACK, sum_t of x[t] in return.

    pairs [C, C], 0 above the diagonal, are a loaded tile.
    """
    tl.static_assert(C == 32 or C == 64)
    found = tl.zeros((C, along_v.shape[0]), dtype=tl.float32)
    for level in range(5 if C == 32 else 6):
        decay = _to_edge(columns_at, along_v, V, v_left, level, C, EVEN_V)
        met = tl.where(_joins(level, C), pairs, 0.0)
        if BACK:
            met = tl.trans(met)
        found += decay * product(met, (x * decay).to(pairs.dtype), PRECISION)
    return found


@triton.jit
def pairs_through_decays(
    reading, read, columns_at, along_v, V, v_left, C: tl.constexpr, EVEN_V: tl.constexpr,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """reading[t] . 2^(H_t - H_s) read[s] for s < t, else 0, [C, C]; rows are [C, BV]."""
    tl.static_assert(C == 32 or C == 64)
    rows = tl.arange(0, C)
    found = tl.zeros((C, C), dtype=tl.float32)
    for level in range(5 if C == 32 else 6):
        decay = _to_edge(columns_at, along_v, V, v_left, level, C, EVEN_V)
        met = product(
            (reading * decay).to(OPERANDS), tl.trans((read * decay).to(OPERANDS)), PRECISION
        )
        found += tl.where(_joins(level, C) & (rows[:, None] > rows[None, :]), met, 0.0)
    return found


@triton.jit
def _joins(level, C: tl.constexpr):
    """Where two neighbouring blocks of 2^level on the diagonal meet."""
    block = tl.arange(0, C) >> level
    return (block[:, None] >> 1 == block[None, :] >> 1) & (block[:, None] != block[None, :])


@triton.jit
def _to_edge(
    columns_at, along_v, V, v_left, level, C: tl.constexpr, EVEN_V: tl.constexpr
):  # fmt: skip
    """2^-|H - H_e|, [C, BV], for blocks of 2^level tokens."""
    rows = tl.arange(0, C)
    edge = ((rows >> level) | 1) * (1 << level) - 1
    here = load_tile(columns_at, rows, along_v, V, C, v_left, EVEN_V)
    there = load_tile(columns_at, edge, along_v, V, C, v_left, EVEN_V)
    return power_of_two(-tl.abs((here - there).to(tl.float32)))
