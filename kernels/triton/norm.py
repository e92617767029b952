"""rms_norm's Triton form: one kernel forward, one backward; nothing is kept beyond the inputs."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import operator

PROGRAMS = 528  # of a backward pass, each with a part of the weight's gradient
_TILE = 4096  # elements


def norm_fused_rows(
    x: Tensor,  # [..., D]
    weight: Tensor,  # [D]
    gate: Tensor | None,  # x's shape
    activation: str,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """x's shape in `dtype`."""
    rows = x.reshape(-1, x.shape[-1])
    gates = None if gate is None else gate.reshape(rows.shape)
    y: Tensor = _forward_op(rows, weight, gates, activation == "silu", eps, dtype)
    return y.view(x.shape)


@operator("norm_forward")
def _forward_op(
    x: Tensor, weight: Tensor, gate: Tensor | None, silu: bool, eps: float, dtype: torch.dtype
) -> Tensor:
    x, gate = adjacent(x), None if gate is None else adjacent(gate)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    (rows, width), (block_rows, block_width) = x.shape, blocks(x)
    norm_kernel[(triton.cdiv(rows, block_rows),)](
        x, weight.contiguous(), x if gate is None else gate, y, rows, width, eps,
        x.stride(0), 0 if gate is None else gate.stride(0),
        BR=block_rows, BD=block_width, GATED=gate is not None, SILU=silu, num_warps=4,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(
    x: Tensor, weight: Tensor, gate: Tensor | None, silu: bool, eps: float, dtype: torch.dtype
) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


@operator("norm_backward")
def _backward_op(
    grad: Tensor, x: Tensor, weight: Tensor, gate: Tensor | None, silu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and gate; the last empty if there is none."""
    x, gate, grad = adjacent(x), None if gate is None else adjacent(gate), adjacent(grad)
    (rows, width), (block_rows, block_width) = x.shape, blocks(x)
    programs = min(triton.cdiv(rows, block_rows), PROGRAMS)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dgate = torch.empty((0,) if gate is None else x.shape, dtype=x.dtype, device=x.device)
    parts = torch.empty((programs, width), dtype=torch.float32, device=x.device)
    norm_pull_kernel[(programs,)](
        grad, x, weight.contiguous(), x if gate is None else gate, dx, parts, dgate,
        rows, width, eps, grad.stride(0), x.stride(0), 0 if gate is None else gate.stride(0),
        BR=block_rows, BD=block_width, GATED=gate is not None, SILU=silu, num_warps=4,
    )  # fmt: skip
    return dx, parts.sum(0).to(weight.dtype), dgate


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor, x: Tensor, weight: Tensor, gate: Tensor | None, silu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dgate = torch.empty((0,) if gate is None else x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty_like(weight, memory_format=torch.contiguous_format), dgate


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, gate, ctx.silu, ctx.eps, _ = inputs
    ctx.save_for_backward(x, weight, gate)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, gate = ctx.saved_tensors
    dx, dweight, dgate = _backward_op(grad, x, weight, gate, ctx.silu, ctx.eps)
    return dx, dweight, None if gate is None else dgate.to(gate.dtype), None, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    x_ptr, weight_ptr, gate_ptr, y_ptr, rows, width, eps, x_r, gate_r,
    BR: tl.constexpr, BD: tl.constexpr, GATED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    columns = tl.arange(0, BD)
    mask = (row[:, None] < rows) & (columns[None, :] < width)
    x = tl.load(x_ptr + row[:, None] * x_r + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, 1) / width + eps)[:, None] * weight[None, :]
    if GATED:
        at = gate_ptr + row[:, None] * gate_r + columns[None, :]
        gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        y *= tl.sigmoid(gate) * (gate if SILU else 1.0)
    tl.store(y_ptr + row[:, None] * width + columns[None, :], y, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def norm_pull_kernel(
    grad_ptr, x_ptr, weight_ptr, gate_ptr, dx_ptr, parts_ptr, dgate_ptr,
    rows, width, eps, grad_r, x_r, gate_r,
    BR: tl.constexpr, BD: tl.constexpr, GATED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """A program goes through many blocks of rows and adds up its part of the weight's gradient."""
    columns = tl.arange(0, BD)
    weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)
    dweight = tl.zeros((BD,), dtype=tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR).to(tl.int64)
        mask = (row[:, None] < rows) & (columns[None, :] < width)
        across = row[:, None]
        x = tl.load(x_ptr + across * x_r + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + across * grad_r + columns[None, :], mask=mask, other=0.0)
        grad = grad.to(tl.float32)
        inverse_rms = tl.rsqrt(tl.sum(x * x, 1) / width + eps)[:, None]
        normed = x * inverse_rms
        to = across * width + columns[None, :]
        if GATED:
            at = gate_ptr + across * gate_r + columns[None, :]
            gate = tl.load(at, mask=mask, other=0.0).to(tl.float32)
            opened = tl.sigmoid(gate)
            by_gate = grad * normed * weight[None, :]
            if SILU:
                by_gate *= opened * (1.0 + gate * (1.0 - opened))
                grad *= opened * gate
            else:
                by_gate *= opened * (1.0 - opened)
                grad *= opened
            tl.store(dgate_ptr + to, by_gate, mask=mask)
        dweight += tl.sum(grad * normed, 0)
        grad *= weight[None, :]
        along = tl.sum(grad * normed, 1) / width
        tl.store(dx_ptr + to, (grad - normed * along[:, None]) * inverse_rms, mask=mask)
    at = parts_ptr + tl.program_id(0) * width + columns
    tl.store(at, dweight, mask=columns < width)


def blocks(x: Tensor) -> tuple[int, int]:
    width = triton.next_power_of_2(x.shape[1])
    return max(_TILE // width, 1), width


def adjacent(x: Tensor) -> Tensor:
    """x, or a copy where the elements of a row are apart."""
    return x if x.stride(1) == 1 else x.contiguous()
