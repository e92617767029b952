"""gated_product's Triton form with a skip: one kernel forward, one backward, inputs alone kept.

Rows may lie apart, so that slices of a projection or of a convolution's output are read in place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gating import gate_and_slope
from .norm import adjacent
from .operators import operator

_BLOCK_ROWS, _BLOCK_WIDTH = 8, 256  # one tile for all widths
_PROGRAMS = 1056  # of a backward pass, each with a part of the rate's gradient


def skip_product_fused(
    x: Tensor,  # [..., D]
    gate: Tensor,  # x's shape
    skip: Tensor,  # x's shape
    rate: Tensor,  # x's last axes, float32
    activation: str,
) -> Tensor:
    """x's shape and dtype."""
    rate = rate.expand(x.shape[x.dim() - max(rate.dim(), 1) :])
    rows = (t.reshape(-1, rate.numel()) for t in (x, gate, skip))
    y: Tensor = _forward_op(*rows, rate.reshape(-1), activation == "silu")
    return y.view(x.shape)


@operator("skip_product_forward")
def _forward_op(x: Tensor, gate: Tensor, skip: Tensor, rate: Tensor, silu: bool) -> Tensor:
    y, inputs = _forward_shape(x, gate, skip, rate, silu), [adjacent(t) for t in (x, gate, skip)]
    blocks, columns = _blocks(x)
    skip_product_kernel[(blocks, columns)](
        *inputs, rate.contiguous(), y, *x.shape, *(t.stride(0) for t in inputs),
        BR=_BLOCK_ROWS, BD=_BLOCK_WIDTH, SILU=silu, num_warps=4,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(x: Tensor, gate: Tensor, skip: Tensor, rate: Tensor, silu: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@operator("skip_product_backward")
def _backward_op(
    grad: Tensor, x: Tensor, gate: Tensor, skip: Tensor, rate: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, gate, skip and rate."""
    dx, dgate, dskip, _ = _backward_shapes(grad, x, gate, skip, rate, silu)
    inputs = [adjacent(t) for t in (grad, x, gate, skip)]
    blocks, columns = _blocks(x)
    programs = min(blocks, max(_PROGRAMS // columns, 1))
    parts = x.new_empty((programs, x.shape[1]), dtype=torch.float32)
    skip_product_pull_kernel[(programs, columns)](
        *inputs, rate.contiguous(), dx, dgate, dskip, parts, *x.shape,
        *(t.stride(0) for t in inputs),
        BR=_BLOCK_ROWS, BD=_BLOCK_WIDTH, SILU=silu, num_warps=4,
    )  # fmt: skip
    return dx, dgate, dskip, parts.sum(0)


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor, x: Tensor, gate: Tensor, skip: Tensor, rate: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dx, dgate, dskip = (
        torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, gate, skip)
    )
    return dx, dgate, dskip, rate.new_empty(rate.shape)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward_op(grad, *ctx.saved_tensors, ctx.silu), None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows"])
def skip_product_kernel(
    x_ptr, gate_ptr, skip_ptr, rate_ptr, y_ptr, rows, width, x_r, gate_r, skip_r,
    BR: tl.constexpr, BD: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < width)
    x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + row * gate_r + column, mask=mask, other=0.0).to(tl.float32)
    skip = tl.load(skip_ptr + row * skip_r + column, mask=mask, other=0.0).to(tl.float32)
    rate = tl.load(rate_ptr + column, mask=column < width, other=0.0)
    opened = tl.sigmoid(gate) * (gate if SILU else 1.0)
    tl.store(y_ptr + row * width + column, (x + rate * skip) * opened, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def skip_product_pull_kernel(
    grad_ptr, x_ptr, gate_ptr, skip_ptr, rate_ptr, dx_ptr, dgate_ptr, dskip_ptr, parts_ptr,
    rows, width, grad_r, x_r, gate_r, skip_r,
    BR: tl.constexpr, BD: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """A program goes through many blocks of rows and adds up its part of the rate's gradient."""
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    inside = column < width
    rate = tl.load(rate_ptr + column, mask=inside, other=0.0)
    drate = tl.zeros((BD,), dtype=tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR).to(tl.int64)[:, None]
        mask = (row < rows) & inside
        grad = tl.load(grad_ptr + row * grad_r + column, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
        gate = tl.load(gate_ptr + row * gate_r + column, mask=mask, other=0.0).to(tl.float32)
        skip = tl.load(skip_ptr + row * skip_r + column, mask=mask, other=0.0).to(tl.float32)
        opened, slope = gate_and_slope(gate, SILU)
        to = row * width + column
        tl.store(dgate_ptr + to, grad * (x + rate * skip) * slope, mask=mask)
        grad *= opened
        tl.store(dx_ptr + to, grad, mask=mask)
        tl.store(dskip_ptr + to, grad * rate, mask=mask)
        drate += tl.sum(grad * skip, 0)
    along = tl.program_id(1) * BD + tl.arange(0, BD)
    tl.store(parts_ptr + tl.program_id(0) * width + along, drate, mask=along < width)


def _blocks(x: Tensor) -> tuple[int, int]:
    """Of rows, and of channels."""
    rows, width = x.shape
    return triton.cdiv(rows, _BLOCK_ROWS), triton.cdiv(width, _BLOCK_WIDTH)
