"""scaled_heads' Triton form: one kernel forward, one backward; the inputs alone are kept.

Backward a program takes tokens of one head of x through all heads that were made of it.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .norm import adjacent
from .operators import operator

_TILE = 2048  # elements


def scaled_heads_fused(
    x: Tensor,  # [B, T, H, K]
    strength: Tensor,  # [B, T, HV]
) -> Tensor:
    """[B, T, HV, K] in x's dtype."""
    (B, T, H, K), HV = x.shape, strength.shape[2]
    y: Tensor = _forward_op(x.reshape(B * T, H * K), strength.reshape(B * T, HV), H)
    return y.view(B, T, HV, K)


@operator("scaled_heads_forward")
def _forward_op(x: Tensor, strength: Tensor, heads: int) -> Tensor:
    x, y = adjacent(x), _forward_shape(x, strength, heads)
    scaled_heads_kernel[_grid(x, heads)](
        x, strength.contiguous(), y, x.shape[0], x.shape[1] // heads, strength.shape[1],
        strength.shape[1] // heads, x.stride(0), **_blocks(x, heads), num_warps=4,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(x: Tensor, strength: Tensor, heads: int) -> Tensor:
    return x.new_empty((x.shape[0], strength.shape[1] * (x.shape[1] // heads)))


@operator("scaled_heads_backward")
def _backward_op(grad: Tensor, x: Tensor, strength: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Gradients of x and strength."""
    dx, dstrength = _backward_shapes(grad, x, strength, heads)
    grad, x = grad.contiguous(), adjacent(x)
    scaled_heads_pull_kernel[_grid(x, heads)](
        grad, x, strength.contiguous(), dx, dstrength,
        x.shape[0], x.shape[1] // heads, strength.shape[1], heads,
        strength.shape[1] // heads, x.stride(0), **_blocks(x, heads), num_warps=4,
    )  # fmt: skip
    return dx, dstrength


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor, x: Tensor, strength: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), strength.new_empty(strength.shape)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, strength, ctx.heads = inputs
    ctx.save_for_backward(x, strength)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_backward_op(grad, *ctx.saved_tensors, ctx.heads), None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows", "value_heads", "group"])
def scaled_heads_kernel(
    x_ptr, strength_ptr, y_ptr, rows, K, value_heads, group, x_r,
    BR: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    head, channel = tl.program_id(1), tl.arange(0, BK)[None, :]
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    mask = (row < rows) & (channel < K)
    x = tl.load(x_ptr + row * x_r + head * K + channel, mask=mask, other=0.0).to(tl.float32)
    for i in range(group):
        made = row * value_heads + head * group + i
        strength = tl.load(strength_ptr + made, mask=row < rows, other=0.0).to(tl.float32)
        tl.store(y_ptr + made * K + channel, x * strength, mask=mask)


@triton.jit(do_not_specialize=["rows", "value_heads", "heads", "group"])
def scaled_heads_pull_kernel(
    grad_ptr, x_ptr, strength_ptr, dx_ptr, dstrength_ptr, rows, K, value_heads, heads, group,
    x_r, BR: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    head, channel = tl.program_id(1), tl.arange(0, BK)[None, :]
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    mask = (row < rows) & (channel < K)
    x = tl.load(x_ptr + row * x_r + head * K + channel, mask=mask, other=0.0).to(tl.float32)
    dx = tl.zeros((BR, BK), dtype=tl.float32)
    for i in range(group):
        made = row * value_heads + head * group + i
        strength = tl.load(strength_ptr + made, mask=row < rows, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + made * K + channel, mask=mask, other=0.0).to(tl.float32)
        dx += grad * strength
        tl.store(dstrength_ptr + made, tl.sum(grad * x, 1)[:, None], mask=row < rows)
    tl.store(dx_ptr + (row * heads + head) * K + channel, dx, mask=mask)


def _grid(x: Tensor, heads: int) -> tuple[int, int]:
    return triton.cdiv(x.shape[0], _blocks(x, heads)["BR"]), heads


def _blocks(x: Tensor, heads: int) -> dict[str, int]:
    width = triton.next_power_of_2(x.shape[1] // heads)
    return {"BR": max(_TILE // width, 1), "BK": width}
