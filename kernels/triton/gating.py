"""gated_product's and swiglu's Triton form: one kernel forward, one backward, inputs alone kept.

Rows may lie apart, so that slices of a projection are read, and its gradient written, in place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .norm import adjacent
from .operators import operator

_BLOCK_ROWS, _BLOCK_WIDTH = 8, 256  # one tile for all widths


def product_fused(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    """x's shape and dtype."""
    y: Tensor = _product_op(*_rows(x, gate), activation == "silu")
    return y.view(x.shape)


def swiglu_fused(gate_up: Tensor) -> Tensor:
    """[..., 2 D] to [..., D]."""
    y: Tensor = _swiglu_op(gate_up.reshape(-1, gate_up.shape[-1]))
    return y.view(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


@operator("product_forward")
def _product_op(x: Tensor, gate: Tensor, silu: bool) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(adjacent(x), adjacent(gate), y, silu)
    return y


@_product_op.register_fake
def _product_shape(x: Tensor, gate: Tensor, silu: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@operator("product_backward")
def _product_pull_op(grad: Tensor, x: Tensor, gate: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    """Gradients of x and gate."""
    dx, dgate = _product_pull_shapes(grad, x, gate, silu)
    _launch_pull(adjacent(grad), adjacent(x), adjacent(gate), dx, dgate, silu)
    return dx, dgate


@_product_pull_op.register_fake
def _product_pull_shapes(
    grad: Tensor, x: Tensor, gate: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty(gate.shape, dtype=gate.dtype, device=x.device)


@operator("swiglu_forward")
def _swiglu_op(gate_up: Tensor) -> Tensor:
    gate, up = adjacent(gate_up).chunk(2, dim=1)
    y = _swiglu_shape(gate_up)
    _launch(up, gate, y, silu=True)
    return y


@_swiglu_op.register_fake
def _swiglu_shape(gate_up: Tensor) -> Tensor:
    rows, width = gate_up.shape
    return torch.empty((rows, width // 2), dtype=gate_up.dtype, device=gate_up.device)


@operator("swiglu_backward")
def _swiglu_pull_op(grad: Tensor, gate_up: Tensor) -> Tensor:
    gate, up = adjacent(gate_up).chunk(2, dim=1)
    together = _swiglu_pull_shape(grad, gate_up)
    dgate, dup = together.chunk(2, dim=1)
    _launch_pull(adjacent(grad), up, gate, dup, dgate, silu=True)
    return together


@_swiglu_pull_op.register_fake
def _swiglu_pull_shape(grad: Tensor, gate_up: Tensor) -> Tensor:
    return torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)


def _keep_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, gate, ctx.silu = inputs
    ctx.save_for_backward(x, gate)


def _pull_product(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    dx, dgate = _product_pull_op(grad, *ctx.saved_tensors, ctx.silu)
    return dx, dgate, None


def _keep_swiglu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _pull_swiglu(ctx: Any, grad: Tensor) -> Tensor:
    dgate_up: Tensor = _swiglu_pull_op(grad, *ctx.saved_tensors)
    return dgate_up


_product_op.register_autograd(_pull_product, setup_context=_keep_product)
_swiglu_op.register_autograd(_pull_swiglu, setup_context=_keep_swiglu)


def _launch(x: Tensor, gate: Tensor, y: Tensor, silu: bool) -> None:
    product_kernel[_grid(x)](
        x, gate, y, *x.shape, x.stride(0), gate.stride(0), y.stride(0),
        BR=_BLOCK_ROWS, BD=_BLOCK_WIDTH, SILU=silu, num_warps=4,
    )  # fmt: skip


def _launch_pull(
    grad: Tensor, x: Tensor, gate: Tensor, dx: Tensor, dgate: Tensor, silu: bool
) -> None:
    product_pull_kernel[_grid(x)](
        grad, x, gate, dx, dgate, *x.shape,
        grad.stride(0), x.stride(0), gate.stride(0), dx.stride(0), dgate.stride(0),
        BR=_BLOCK_ROWS, BD=_BLOCK_WIDTH, SILU=silu, num_warps=4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    x_ptr, gate_ptr, y_ptr, rows, width, x_r, gate_r, y_r,
    BR: tl.constexpr, BD: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < width)
    x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + row * gate_r + column, mask=mask, other=0.0).to(tl.float32)
    opened = tl.sigmoid(gate) * (gate if SILU else 1.0)
    tl.store(y_ptr + row * y_r + column, x * opened, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def product_pull_kernel(
    grad_ptr, x_ptr, gate_ptr, dx_ptr, dgate_ptr, rows, width,
    grad_r, x_r, gate_r, dx_r, dgate_r,
    BR: tl.constexpr, BD: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < width)
    grad = tl.load(grad_ptr + row * grad_r + column, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + row * gate_r + column, mask=mask, other=0.0).to(tl.float32)
    opened, slope = gate_and_slope(gate, SILU)
    tl.store(dx_ptr + row * dx_r + column, grad * opened, mask=mask)
    tl.store(dgate_ptr + row * dgate_r + column, grad * x * slope, mask=mask)


@triton.jit
def gate_and_slope(gate, SILU: tl.constexpr):
    """silu(gate) or sigmoid(gate), and its derivative."""
    opened = tl.sigmoid(gate)
    if SILU:
        slope = opened * (1.0 + gate * (1.0 - opened))
        opened *= gate
    else:
        slope = opened * (1.0 - opened)
    return opened, slope


def _grid(x: Tensor) -> tuple[int, int]:
    rows, width = x.shape
    return triton.cdiv(rows, _BLOCK_ROWS), triton.cdiv(width, _BLOCK_WIDTH)


def _rows(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [rows, width]; heads narrower than a block become one row where they are adjacent."""
    while x.dim() > 2 and x.shape[-1] < _BLOCK_WIDTH and merges(x) and merges(gate):
        x, gate = x.flatten(-2), gate.flatten(-2)
    return x.reshape(-1, x.shape[-1]), gate.reshape(-1, x.shape[-1])


def merges(x: Tensor) -> bool:
    """Whether the last two axes are one without a copy."""
    return x.stride(-1) == 1 and x.stride(-2) == x.shape[-1]
