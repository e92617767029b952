"""What the Triton kernels share: loads and stores of [rows, columns] tiles, products."""

from __future__ import annotations

import os

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# A lower log decay counts as this: exp of it is 0 in float32, and sums of it stay finite.
LOWEST_LOG_DECAY = tl.constexpr(-1000.0)
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def power_of_two(x):
    """2^x in float32, 0 below 2^-126: `tl.exp2` takes five instructions more over smaller ones."""
    if _INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def sigmoid(x):
    """In float32, 0 where it is below 2^-126: a division takes four instructions more."""
    if _INTERPRETED:
        return tl.sigmoid(x)
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;",
        "=f,f",
        [1.0 + power_of_two(x * -LOG2_E)],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def not_hoisted(rows, rows_left):
    """rows, for rows_left above 0, in a form that is computed anew in each turn of a loop.

    The compiler would otherwise keep every mask and offset made of them in registers throughout.
    """
    return rows + tl.minimum(rows_left, 0)


@triton.jit
def load_tile(base, rows, columns, stride, rows_left, width, EVEN: tl.constexpr):
    """[R, D] at base, 0 outside; columns are adjacent in memory."""
    mask = rows[:, None] < rows_left
    if not EVEN:
        mask = mask & (columns[None, :] < width)
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_tile(base, x, rows, columns, stride, rows_left, width, EVEN: tl.constexpr):
    mask = rows[:, None] < rows_left
    if not EVEN:
        mask = mask & (columns[None, :] < width)
    x = x.to(base.dtype.element_ty)
    tl.store(base + rows[:, None] * stride + columns[None, :], x, mask=mask)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def through_states(
    x_at, rows, stride, states_at, along_k, left, k_left, V,
    BV: tl.constexpr, EVEN_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows of V numbers times the states' transpose, [C, BK]."""
    along_v = tl.arange(0, BV)
    found = tl.zeros((rows.shape[0], along_k.shape[0]), dtype=tl.float32)
    for begin in range(0, V, BV):
        v_left = V - begin
        x = load_tile(x_at + begin, rows, along_v, stride, left, v_left, EVEN_V)
        x = x.to(states_at.dtype.element_ty)
        states = load_tile(states_at + begin, along_k, along_v, V, k_left, v_left, EVEN_V)
        found += product(x, tl.trans(states), PRECISION)
    return found


@triton.jit
def from_here_on(up, rows, PRECISION: tl.constexpr):
    """Sums over each row and the later ones, of terms that cancel in part."""
    SUMMING: tl.constexpr = "ieee" if PRECISION == "ieee" else "tf32x3"
    return product(tl.where(rows[:, None] > rows[None, :], 0.0, 1.0), up, SUMMING)


@triton.jit
def before_here(down, rows, PRECISION: tl.constexpr):
    """Sums over the rows before each."""
    return product(
        tl.where(rows[:, None] > rows[None, :], 1.0, 0.0).to(down.dtype), down, PRECISION
    )


@triton.jit
def passed_on(up, down, rows):
    """Sums of `up` [R, D] over each row and the later ones, and of `down` over the earlier ones.

    No products as above, though they are faster by themselves: in chunk_decay's pull, whose
    registers are full, they spill 3,184 bytes a thread where this spills 176.
    """
    one_up = tl.broadcast_to(tl.maximum(rows - 1, 0)[:, None], down.shape)
    # Not the sum with the row itself less the row: that would round to its size.
    before = tl.where(rows[:, None] > 0, tl.gather(down, one_up, 0), 0.0)
    return tl.cumsum(up, 0, reverse=True) + tl.cumsum(before, 0)


@triton.jit
def diagonal_of(x, rows):
    """The diagonal of x [C, C] in float32, as a column [C, 1]."""
    diagonal = rows[:, None] == rows[None, :]
    return tl.sum(tl.where(diagonal, x, 0.0).to(tl.float32), 1)[:, None]


@triton.jit
def row_of(x, rows, row):
    """Row `row` of x [R, D] in float32."""
    return tl.sum(tl.where(rows[:, None] == row, x.to(tl.float32), 0.0), 0)
