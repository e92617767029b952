"""add_rms_norm's Triton form: one kernel forward, one backward; the sum alone is kept."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .norm import PROGRAMS, adjacent, blocks
from .operators import operator


def add_norm_fused(
    x: Tensor,  # [..., D]
    residual: Tensor,  # x's shape
    weight: Tensor,  # [D]
    eps: float,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """The norm in `dtype` (None: the sum's), and the sum."""
    sum_dtype = torch.promote_types(x.dtype, residual.dtype)
    rows, residuals = x.reshape(-1, x.shape[-1]), residual.reshape(-1, x.shape[-1])
    y, total = _forward_op(rows, residuals, weight, eps, dtype or sum_dtype)
    return y.view(x.shape), total.view(x.shape)


@operator("add_norm_forward")
def _forward_op(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    y, total = _forward_shapes(x, residual, weight, eps, dtype)
    x, residual = adjacent(x), adjacent(residual)
    (rows, width), (block_rows, block_width) = x.shape, blocks(x)
    add_norm_kernel[(triton.cdiv(rows, block_rows),)](
        x, residual, weight.contiguous(), y, total, rows, width, eps,
        x.stride(0), residual.stride(0), BR=block_rows, BD=block_width, num_warps=4,
    )  # fmt: skip
    return y, total


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    sum_dtype = torch.promote_types(x.dtype, residual.dtype)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    return y, torch.empty(x.shape, dtype=sum_dtype, device=x.device)


@operator("add_norm_backward")
def _backward_op(
    grad: Tensor, grad_total: Tensor, total: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum's gradient in its own dtype and, where that is another, in `dtype`; the weight's."""
    dtotal, dother, _ = _backward_shapes(grad, grad_total, total, weight, eps, dtype)
    grad, grad_total = adjacent(grad), adjacent(grad_total)
    (rows, width), (block_rows, block_width) = total.shape, blocks(total)
    programs = min(triton.cdiv(rows, block_rows), PROGRAMS)
    parts = torch.empty((programs, width), dtype=torch.float32, device=total.device)
    add_norm_pull_kernel[(programs,)](
        grad, grad_total, total, weight.contiguous(), dtotal, dother, parts,
        rows, width, eps, grad.stride(0), grad_total.stride(0),
        BR=block_rows, BD=block_width, TWICE=dtype != total.dtype, num_warps=4,
    )  # fmt: skip
    return dtotal, dother, parts.sum(0).to(weight.dtype)


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor, grad_total: Tensor, total: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    dtotal = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    other = total.shape if dtype != total.dtype else (0,)
    dother = torch.empty(other, dtype=dtype, device=total.device)
    return dtotal, dother, torch.empty_like(weight, memory_format=torch.contiguous_format)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, weight, ctx.eps, _ = inputs
    ctx.dtypes = x.dtype, residual.dtype
    ctx.save_for_backward(output[1], weight)


def _pull(ctx: Any, grad: Tensor, grad_total: Tensor) -> tuple[Tensor | None, ...]:
    total, weight = ctx.saved_tensors
    narrow = next((dtype for dtype in ctx.dtypes if dtype != total.dtype), total.dtype)
    dtotal, dother, dweight = _backward_op(grad, grad_total, total, weight, ctx.eps, narrow)
    dx, dresidual = (dtotal if dtype == total.dtype else dother.to(dtype) for dtype in ctx.dtypes)
    return dx, dresidual, dweight, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows"])
def add_norm_kernel(
    x_ptr, residual_ptr, weight_ptr, y_ptr, total_ptr, rows, width, eps, x_r, residual_r,
    BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    columns = tl.arange(0, BD)
    column = columns[None, :]
    mask = (row < rows) & (column < width)
    x = tl.load(x_ptr + row * x_r + column, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + row * residual_r + column, mask=mask, other=0.0).to(tl.float32)
    total = x.to(total_ptr.dtype.element_ty)
    to = row * width + column
    tl.store(total_ptr + to, total, mask=mask)
    x = total.to(tl.float32)  # the backward pass sees the rounded sum
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 1) / width + eps)[:, None] * weight[None, :]
    tl.store(y_ptr + to, y, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def add_norm_pull_kernel(
    grad_ptr, grad_total_ptr, total_ptr, weight_ptr, dtotal_ptr, dother_ptr, parts_ptr,
    rows, width, eps, grad_r, grad_total_r,
    BR: tl.constexpr, BD: tl.constexpr, TWICE: tl.constexpr,
):  # fmt: skip
    """A program goes through many blocks of rows and adds up its part of the weight's gradient."""
    columns = tl.arange(0, BD)
    column = columns[None, :]
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    dweight = tl.zeros((BD,), dtype=tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR).to(tl.int64)[:, None]
        mask = (row < rows) & (column < width)
        to = row * width + column
        x = tl.load(total_ptr + to, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row * grad_r + column, mask=mask, other=0.0).to(tl.float32)
        at = grad_total_ptr + row * grad_total_r + column
        straight = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        inverse_rms = tl.rsqrt(tl.sum(x * x, 1) / width + eps)[:, None]
        normed = x * inverse_rms
        dweight += tl.sum(grad * normed, 0)
        grad *= weight[None, :]
        along = tl.sum(grad * normed, 1) / width
        dtotal = straight + (grad - normed * along[:, None]) * inverse_rms
        tl.store(dtotal_ptr + to, dtotal, mask=mask)
        if TWICE:
            tl.store(dother_ptr + to, dtotal, mask=mask)
    at = parts_ptr + tl.program_id(0) * width + columns
    tl.store(at, dweight, mask=columns < width)
