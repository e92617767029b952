"""token_shift's Triton form: one kernel forward, one backward; the inputs alone are kept.

All blends of a tile are made of one read of x, and their gradients are added up into one of x:
what a token gives to the next is read again with the next token's tile, mostly from the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import operator

# Rows and channels of a tile. Backward, each tile of rows writes a part of the shares' gradient.
_FORWARD, _BACKWARD = (16, 128), (64, 64)


def token_shift_fused(
    x: Tensor,  # [B, T, D]
    shares: Tensor,  # [n, D] float32
    offsets: Tensor | None,  # [n, B, T, D]
    initial_state: Tensor | None,  # [B, 1, D], x's dtype
) -> tuple[Tensor, ...]:
    """n blends, each [B, T, D] in x's dtype."""
    return tuple(_forward_op(x, shares, offsets, initial_state))


@operator("token_shift_forward")
def _forward_op(
    x: Tensor, shares: Tensor, offsets: Tensor | None, initial_state: Tensor | None
) -> list[Tensor]:
    x, blends = x.contiguous(), _forward_shapes(x, shares, offsets, initial_state)
    token_shift_kernel[_grid(x, *_FORWARD)](
        x, shares.contiguous(), *_or_x(x, offsets, initial_state), tuple(blends), *_sizes(x),
        N=len(blends), BR=_FORWARD[0], BD=_FORWARD[1],
        HAS_OFFSETS=offsets is not None, HAS_START=initial_state is not None, num_warps=4,
    )  # fmt: skip
    return blends


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, shares: Tensor, offsets: Tensor | None, initial_state: Tensor | None
) -> list[Tensor]:
    return [x.new_empty(x.shape) for _ in range(shares.shape[0])]


@operator("token_shift_backward")
def _backward_op(
    grads: list[Tensor],
    x: Tensor,
    shares: Tensor,
    offsets: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, shares, offsets and the initial state; the last two empty if not given."""
    x, grid = x.contiguous(), _grid(x, *_BACKWARD)
    dx, _, doffsets, dstart = _backward_shapes(grads, x, shares, offsets, initial_state)
    parts = x.new_empty((grid[0], *shares.shape), dtype=torch.float32)
    token_shift_pull_kernel[grid](
        tuple(grad.contiguous() for grad in grads), x, shares.contiguous(),
        *_or_x(x, offsets, initial_state), dx, parts, doffsets, dstart, *_sizes(x),
        N=len(grads), BR=_BACKWARD[0], BD=_BACKWARD[1],
        HAS_OFFSETS=offsets is not None, HAS_START=initial_state is not None, num_warps=8,
    )  # fmt: skip
    return dx, parts.sum(0), doffsets, dstart


@_backward_op.register_fake
def _backward_shapes(
    grads: list[Tensor],
    x: Tensor,
    shares: Tensor,
    offsets: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    doffsets, dstart = (
        x.new_empty(0) if t is None else t.new_empty(t.shape) for t in (offsets, initial_state)
    )
    return x.new_empty(x.shape), shares.new_empty(shares.shape), doffsets, dstart


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _pull(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    x, shares, offsets, initial_state = ctx.saved_tensors
    given = [torch.zeros_like(x) if grad is None else grad for grad in grads]
    dx, dshares, doffsets, dstart = _backward_op(given, x, shares, offsets, initial_state)
    of_offsets = None if offsets is None else doffsets
    return dx, dshares, of_offsets, None if initial_state is None else dstart


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows", "length"])
def token_shift_kernel(
    x_ptr, shares_ptr, offsets_ptr, start_ptr, blend_ptrs, rows, length, width,
    N: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
    HAS_OFFSETS: tl.constexpr, HAS_START: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < width)
    at = row * width + column
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    change = _before(x_ptr, start_ptr, row, column, mask, length, width, HAS_START) - x
    for i in tl.static_range(N):
        of_blend, earlier_rows = shares_ptr + i * width, i * rows.to(tl.int64)
        share = _share(of_blend, offsets_ptr, earlier_rows, row, column, mask, width, HAS_OFFSETS)
        tl.store(blend_ptrs[i] + at, x + change * share, mask=mask)


@triton.jit(do_not_specialize=["rows", "length"])
def token_shift_pull_kernel(
    grad_ptrs, x_ptr, shares_ptr, offsets_ptr, start_ptr, dx_ptr, parts_ptr, doffsets_ptr,
    dstart_ptr, rows, length, width,
    N: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
    HAS_OFFSETS: tl.constexpr, HAS_START: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    inside = column < width
    mask = (row < rows) & inside
    has_next = mask & ((row + 1) % length != 0)
    at = row * width + column
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    change = _before(x_ptr, start_ptr, row, column, mask, length, width, HAS_START) - x
    dx = tl.zeros((BR, BD), dtype=tl.float32)
    dbefore = tl.zeros((BR, BD), dtype=tl.float32)
    for i in tl.static_range(N):
        of_blend, earlier_rows = shares_ptr + i * width, i * rows.to(tl.int64)
        grad = tl.load(grad_ptrs[i] + at, mask=mask, other=0.0).to(tl.float32)
        share = _share(of_blend, offsets_ptr, earlier_rows, row, column, mask, width, HAS_OFFSETS)
        dx += grad * (1.0 - share)
        if HAS_START:
            dbefore += grad * share
        if HAS_OFFSETS:
            tl.store(doffsets_ptr + earlier_rows * width + at, grad * change, mask=mask)
        of_part = parts_ptr + (tl.program_id(0) * N + i) * width + column
        tl.store(of_part, tl.sum(grad * change, 0)[None, :], mask=inside)
        grad = tl.load(grad_ptrs[i] + at + width, mask=has_next, other=0.0).to(tl.float32)
        share = _share(
            of_blend, offsets_ptr, earlier_rows, row + 1, column, has_next, width, HAS_OFFSETS
        )
        dx += grad * share
    tl.store(dx_ptr + at, dx, mask=mask)
    if HAS_START:
        to = dstart_ptr + row // length * width + column
        tl.store(to, dbefore, mask=mask & (row % length == 0))


@triton.jit
def _before(x_ptr, start_ptr, row, column, mask, length, width, HAS_START: tl.constexpr):
    """x one token earlier; before a sequence its initial state, or zeros."""
    is_first = row % length == 0
    at = x_ptr + (row - 1) * width + column
    before = tl.load(at, mask=mask & (is_first == 0), other=0.0).to(tl.float32)
    if HAS_START:
        at = start_ptr + row // length * width + column
        before += tl.load(at, mask=mask & is_first, other=0.0).to(tl.float32)
    return before


@triton.jit
def _share(
    shares_ptr, offsets_ptr, earlier_rows, row, column, mask, width, HAS_OFFSETS: tl.constexpr
):  # fmt: skip
    share = tl.load(shares_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    if HAS_OFFSETS:
        at = offsets_ptr + (earlier_rows + row) * width + column
        share += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    return share


def _grid(x: Tensor, block_rows: int, block_width: int) -> tuple[int, int]:
    B, T, D = x.shape
    return triton.cdiv(B * T, block_rows), triton.cdiv(D, block_width)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Rows of all sequences, of one, and channels."""
    B, T, D = x.shape
    return B * T, T, D


def _or_x(x: Tensor, *tensors: Tensor | None) -> list[Tensor]:
    """Some pointer where there is no tensor."""
    return [x if t is None else t.contiguous() for t in tensors]
