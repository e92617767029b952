"""The division by chunk_decay's normaliser: one kernel forward, one backward; its input is kept."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..normaliser import SMALLEST_NORMALISER
from .norm import adjacent
from .operators import operator

_TILE = 2048  # elements
_SMALLEST = tl.constexpr(SMALLEST_NORMALISER)


def divided_fused(
    o: Tensor,  # [..., W], W above V
    value_dim: int,  # V
) -> Tensor:
    """[..., V] in o's dtype."""
    y: Tensor = _forward_op(o.reshape(-1, o.shape[-1]), value_dim)
    return y.view(*o.shape[:-1], value_dim)


@operator("divide_forward")
def _forward_op(o: Tensor, value_dim: int) -> Tensor:
    o, y, (block_rows, block_width) = adjacent(o), _forward_shape(o, value_dim), _blocks(o)
    divide_kernel[(triton.cdiv(o.shape[0], block_rows),)](
        o, y, o.shape[0], value_dim, o.stride(0), BR=block_rows, BD=block_width, num_warps=4
    )
    return y


@_forward_op.register_fake
def _forward_shape(o: Tensor, value_dim: int) -> Tensor:
    return o.new_empty((o.shape[0], value_dim))


@operator("divide_backward")
def _backward_op(grad: Tensor, o: Tensor) -> Tensor:
    grad, o, (block_rows, block_width) = adjacent(grad), adjacent(o), _blocks(o)
    do = _backward_shape(grad, o)
    divide_pull_kernel[(triton.cdiv(o.shape[0], block_rows),)](
        grad, o, do, o.shape[0], grad.shape[1], o.shape[1], grad.stride(0), o.stride(0),
        BR=block_rows, BD=block_width, num_warps=4,
    )  # fmt: skip
    return do


@_backward_op.register_fake
def _backward_shape(grad: Tensor, o: Tensor) -> Tensor:
    return o.new_empty(o.shape)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _backward_op(grad, *ctx.saved_tensors), None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows"])
def divide_kernel(o_ptr, y_ptr, rows, V, o_r, BR: tl.constexpr, BD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < V)
    o = tl.load(o_ptr + row * o_r + column, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(o_ptr + row * o_r + V, mask=row < rows, other=1.0).to(tl.float32)
    tl.store(y_ptr + row * V + column, o / _away_from_zero(z), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def divide_pull_kernel(
    grad_ptr, o_ptr, do_ptr, rows, V, width, grad_r, o_r, BR: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < V)
    grad = tl.load(grad_ptr + row * grad_r + column, mask=mask, other=0.0).to(tl.float32)
    o = tl.load(o_ptr + row * o_r + column, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(o_ptr + row * o_r + V, mask=row < rows, other=1.0).to(tl.float32)
    divisor = _away_from_zero(z)
    along = tl.sum(grad * o, 1)[:, None] / (divisor * divisor)
    dz = tl.where(tl.abs(z) < _SMALLEST, 0.0, -along)
    do = tl.where(column == V, dz, grad / divisor)
    tl.store(do_ptr + row * width + column, do, mask=(row < rows) & (column < width))


@triton.jit
def _away_from_zero(z):
    smallest = tl.where(z < 0, -_SMALLEST, _SMALLEST)
    return tl.where(tl.abs(z) < _SMALLEST, smallest, z)


def _blocks(o: Tensor) -> tuple[int, int]:
    width = triton.next_power_of_2(o.shape[1])
    return max(_TILE // width, 1), width
