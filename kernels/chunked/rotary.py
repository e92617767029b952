"""Torch form of `rotary`, in x's dtype: gradients are turned back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def angles(position: Tensor, length: int, head_dim: int, base: float) -> Tensor:
    """[T, K / 2] in float32."""
    device = position.device
    steps = position + torch.arange(length, device=device)
    channels = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
    return steps[:, None].to(torch.float32) * base ** (-channels / head_dim)


def rotated(
    x: Tensor,  # [B, T, H, K]
    cos: Tensor,  # [T, K / 2], x's dtype
    sin: Tensor,
) -> Tensor:
    y: Tensor = _Rotation.apply(x, torch.cat((cos, cos), dim=-1)[:, None], sin[:, None])
    return y


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    y = x * cos
    (x_first, x_second), (first, second) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    first.addcmul_(x_second, sin, value=-1)
    second.addcmul_(x_first, sin)
    return y
