"""rotary's Triton form: one kernel, which also turns gradients back; the angles alone are kept.

Rows may lie apart, so that slices of a projection are read in place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .norm import adjacent
from .operators import operator

_BLOCK_ROWS, _BLOCK_WIDTH = 8, 128  # tokens, pairs of channels: one tile for all widths


def rotary_fused(
    x: Tensor,  # [B, T, H, K]
    cos: Tensor,  # [T, K / 2] float32
    sin: Tensor,
) -> Tensor:
    """x's shape and dtype."""
    B, T, H, K = x.shape
    y: Tensor = _rotate_op(x.reshape(B * T, H * K), cos, sin)
    return y.view(x.shape)


@operator("rotate")
def _rotate_op(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: tokens of sequences as long as the angles are, [B T, H K]."""
    x, y, (rows, width) = adjacent(x), _rotate_shape(x, cos, sin), x.shape
    grid = triton.cdiv(rows, _BLOCK_ROWS), triton.cdiv(width // 2, _BLOCK_WIDTH)
    rotary_kernel[grid](
        x, cos.contiguous(), sin.contiguous(), y, rows, cos.shape[0], width, x.stride(0),
        HALF=cos.shape[1], BR=_BLOCK_ROWS, BD=_BLOCK_WIDTH, num_warps=4,
    )  # fmt: skip
    return y


@_rotate_op.register_fake
def _rotate_shape(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin = inputs
    ctx.save_for_backward(cos, sin)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    cos, sin = ctx.saved_tensors
    return _rotate_op(grad, cos, -sin), None, None


_rotate_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["rows", "length"])
def rotary_kernel(
    x_ptr, cos_ptr, sin_ptr, y_ptr, rows, length, width, x_r,
    HALF: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    pair = tl.program_id(1) * BD + tl.arange(0, BD)[None, :]
    mask = (row < rows) & (pair < width // 2)
    channel = pair % HALF
    column = pair // HALF * (2 * HALF) + channel
    of_angle = row % length * HALF + channel
    cos = tl.load(cos_ptr + of_angle, mask=mask, other=0.0)
    sin = tl.load(sin_ptr + of_angle, mask=mask, other=0.0)
    at = x_ptr + row * x_r + column
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    to = y_ptr + row * width + column
    tl.store(to, first * cos - second * sin, mask=mask)
    tl.store(to + HALF, second * cos + first * sin, mask=mask)
