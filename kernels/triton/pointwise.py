"""activation's Triton form: one kernel forward, one backward; x alone is kept.

Rows may lie apart, so that slices of a projection are read in place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gating import merges
from .norm import adjacent
from .operators import operator

_TILE = 2048  # elements
_WIDTHS = (16, 128)  # of a tile: heads, channels
_PROGRAMS = 1056  # of a backward pass, each with a part of the parameters' gradients
# Slices begin and lie anywhere; the work on each element is worth more than wider reads.
_ANYWHERE = {
    "do_not_specialize": ["rows", "width", "x_r", "grad_r"],
    "do_not_specialize_on_alignment": ["x_ptr", "bias_ptr", "rate_ptr", "grad_ptr"],
}


def activation_fused(
    x: Tensor,  # [..., D]
    function: str,
    bias: Tensor | None,  # x's last axes
    rate: Tensor | None,  # x's last axes
    factor: float,
    floor: float,
    dtype: torch.dtype,
) -> Tensor:
    """x's shape in `dtype`."""
    axes = max((p.dim() for p in (bias, rate) if p is not None), default=0)
    along = x.shape[x.dim() - axes :]
    bias, rate = (None if p is None else p.expand(along).reshape(-1) for p in (bias, rate))
    rows = x.reshape(-1, along.numel()) if axes else _joined(x)
    y: Tensor = _forward_op(rows, function, bias, rate, factor, floor, dtype)
    return y.view(x.shape)


@operator("activation_forward")
def _forward_op(
    x: Tensor,
    function: str,
    bias: Tensor | None,
    rate: Tensor | None,
    factor: float,
    floor: float,
    dtype: torch.dtype,
) -> Tensor:
    x, y = adjacent(x), torch.empty(x.shape, dtype=dtype, device=x.device)
    (rows, width), (block_rows, block_width) = x.shape, _blocks(x)
    grid = (triton.cdiv(rows, block_rows), triton.cdiv(width, block_width))
    activation_kernel[grid](
        x, *_or_x(bias, rate, x), y, rows, width, factor, floor, x.stride(0),
        BR=block_rows, BD=block_width, FUNCTION=function,
        HAS_BIAS=bias is not None, HAS_RATE=rate is not None, num_warps=4,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(
    x: Tensor,
    function: str,
    bias: Tensor | None,
    rate: Tensor | None,
    factor: float,
    floor: float,
    dtype: torch.dtype,
) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


@operator("activation_backward")
def _backward_op(
    grad: Tensor,
    x: Tensor,
    function: str,
    bias: Tensor | None,
    rate: Tensor | None,
    factor: float,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, bias and rate; empty where there is none."""
    x, grad = adjacent(x), adjacent(grad)
    (rows, width), (block_rows, block_width) = x.shape, _blocks(x)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    columns, blocks = triton.cdiv(width, block_width), triton.cdiv(rows, block_rows)
    programs = min(blocks, max(_PROGRAMS // columns, 1))
    dbias, drate = (
        x.new_empty((0,) if p is None else (programs, width), dtype=torch.float32)
        for p in (bias, rate)
    )
    activation_pull_kernel[(programs, columns)](
        grad, x, *_or_x(bias, rate, x), dx, dbias, drate, rows, width, factor, floor,
        grad.stride(0), x.stride(0),
        BR=block_rows, BD=block_width, FUNCTION=function,
        HAS_BIAS=bias is not None, HAS_RATE=rate is not None, num_warps=4,
    )  # fmt: skip
    sums = (
        parts if p is None else parts.sum(0).to(p.dtype)
        for p, parts in ((bias, dbias), (rate, drate))
    )
    return dx, *sums


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor,
    x: Tensor,
    function: str,
    bias: Tensor | None,
    rate: Tensor | None,
    factor: float,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    none = x.new_empty((0,), dtype=torch.float32)
    of_parameters = (none if p is None else p.new_empty(p.shape) for p in (bias, rate))
    return dx, *of_parameters


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.function, bias, rate, ctx.factor, ctx.floor, _ = inputs
    ctx.save_for_backward(x, bias, rate)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, bias, rate = ctx.saved_tensors
    dx, dbias, drate = _backward_op(grad, x, ctx.function, bias, rate, ctx.factor, ctx.floor)
    of_bias, of_rate = None if bias is None else dbias, None if rate is None else drate
    return dx, None, of_bias, of_rate, None, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(**_ANYWHERE)
def activation_kernel(
    x_ptr, bias_ptr, rate_ptr, y_ptr, rows, width, factor, floor, x_r,
    BR: tl.constexpr, BD: tl.constexpr, FUNCTION: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RATE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (column < width)
    x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    y = _value(x, floor, FUNCTION) * factor
    if HAS_RATE:
        y *= tl.load(rate_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * width + column, y, mask=mask)


@triton.jit(**_ANYWHERE)
def activation_pull_kernel(
    grad_ptr, x_ptr, bias_ptr, rate_ptr, dx_ptr, dbias_ptr, drate_ptr,
    rows, width, factor, floor, grad_r, x_r,
    BR: tl.constexpr, BD: tl.constexpr, FUNCTION: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RATE: tl.constexpr,
):  # fmt: skip
    """A program goes through many blocks of rows and adds up its parts of bias and rate."""
    column = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    inside = column < width
    dbias = tl.zeros((BD,), dtype=tl.float32)
    drate = tl.zeros((BD,), dtype=tl.float32)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_RATE:
        rate = tl.load(rate_ptr + column, mask=inside, other=0.0).to(tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR).to(tl.int64)[:, None]
        mask = (row < rows) & inside
        x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row * grad_r + column, mask=mask, other=0.0).to(tl.float32)
        grad *= factor
        if HAS_BIAS:
            x += bias
        if HAS_RATE:
            drate += tl.sum(grad * _value(x, floor, FUNCTION), 0)
            grad *= rate
        grad *= _slope(x, floor, FUNCTION)
        if HAS_BIAS:
            dbias += tl.sum(grad, 0)
        tl.store(dx_ptr + row * width + column, grad, mask=mask)
    along = tl.program_id(1) * BD + tl.arange(0, BD)
    at = tl.program_id(0) * width + along
    if HAS_BIAS:
        tl.store(dbias_ptr + at, dbias, mask=along < width)
    if HAS_RATE:
        tl.store(drate_ptr + at, drate, mask=along < width)


@triton.jit
def _value(x, floor, FUNCTION: tl.constexpr):
    if FUNCTION == "log_sigmoid":
        # log(1 - (1 - floor) sigmoid(-x)), but x - log(1 + e^x) where that would cancel.
        cancels = (x <= 0) & (floor == 0)
        inner = tl.where(cancels, tl.exp(tl.minimum(x, 0)), (floor - 1) * tl.sigmoid(-x))
        y = tl.where(cancels, x - _log1p(inner), _log1p(inner))
    elif FUNCTION == "softplus":
        y = tl.maximum(x, 0) + _log1p(tl.exp(-tl.abs(x)))
    elif FUNCTION == "sigmoid":
        y = tl.sigmoid(x)
    elif FUNCTION == "silu":
        y = x * tl.sigmoid(x)
    elif FUNCTION == "exp":
        y = tl.exp(x)
    elif FUNCTION == "elu_plus_one":
        y = tl.where(x > 0, x + 1, tl.exp(tl.minimum(x, 0)))
    elif FUNCTION == "squared_relu":
        y = tl.maximum(x, 0) * tl.maximum(x, 0)
    else:
        tl.static_assert(FUNCTION == "relu")
        y = tl.maximum(x, 0)
    return y


@triton.jit
def _slope(x, floor, FUNCTION: tl.constexpr):
    """The derivative by x."""
    if FUNCTION == "log_sigmoid":
        opened = (1 - floor) * tl.sigmoid(x)
        share = tl.where(floor > 0, opened / (floor + opened), 1.0)
        slope = tl.sigmoid(-x) * share
    elif FUNCTION == "softplus":
        slope = tl.sigmoid(x)
    elif FUNCTION == "sigmoid":
        slope = tl.sigmoid(x) * tl.sigmoid(-x)
    elif FUNCTION == "silu":
        slope = tl.sigmoid(x) * (1 + x * tl.sigmoid(-x))
    elif FUNCTION == "exp":
        slope = tl.exp(x)
    elif FUNCTION == "elu_plus_one":
        slope = tl.exp(tl.minimum(x, 0))
    elif FUNCTION == "squared_relu":
        slope = 2 * tl.maximum(x, 0)
    else:
        tl.static_assert(FUNCTION == "relu")
        slope = tl.where(x > 0, 1.0, 0.0)
    return slope


@triton.jit
def _log1p(x):
    """log(1 + x), also where 1 + x would round x away."""
    return tl.where(tl.abs(x) < 1e-3, x * (1 - x * (0.5 - x * (1 / 3))), tl.log(1 + x))


def _blocks(x: Tensor) -> tuple[int, int]:
    width = next((size for size in _WIDTHS if x.shape[1] <= size), _WIDTHS[-1])
    return _TILE // width, width


def _joined(x: Tensor) -> Tensor:
    """[rows, width]; heads narrower than a tile become one row where they are adjacent."""
    while x.dim() > 2 and x.shape[-1] < _WIDTHS[-1] and merges(x):
        x = x.flatten(-2)
    return x.reshape(-1, x.shape[-1] if x.dim() else 1)


def _or_x(bias: Tensor | None, rate: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Some pointer where there is no parameter."""
    return x if bias is None else bias.contiguous(), x if rate is None else rate.contiguous()
