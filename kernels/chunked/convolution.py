"""Torch form of `short_convolution`: a sum of W shifted copies.

torch's depthwise conv1d wants channels first and takes twice as long on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def convolution_shifts(
    x: Tensor,  # [B, W - 1 + T, D], the earlier tokens first
    weight: Tensor,  # [D, W]
    bias: Tensor | None,  # [D]
    activation: str | None,
) -> Tensor:
    y: Tensor = _Convolution.apply(x, weight, bias, activation == "silu")
    return y


def heads_of_unit_length(
    y: Tensor,  # [B, T, D]
    n_channels: int,  # of which heads are made
    head_dim: int,
    eps: float,
) -> Tensor:
    heads = y[..., :n_channels].unflatten(-1, (-1, head_dim))
    heads = heads * torch.rsqrt(heads.square().sum(-1, keepdim=True) + eps)
    return torch.cat((heads.flatten(-2), y[..., n_channels:]), dim=-1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
        width = weight.shape[1]
        length = x.shape[1] - width + 1
        taps = weight.T.contiguous()  # [W, D]
        y = x[:, :length] * taps[0]
        for i in range(1, width):
            y.addcmul_(x[:, i : i + length], taps[i])
        if bias is not None:
            y += bias
        ctx.save_for_backward(x, taps, y if silu else None)
        return F.silu(y) if silu else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, before_silu = ctx.saved_tensors
        if before_silu is not None:
            grad = torch.ops.aten.silu_backward(grad, before_silu)
        length = grad.shape[1]
        grad_x, grad_taps = torch.zeros_like(x), torch.empty_like(taps)
        for i in range(taps.shape[0]):
            grad_x[:, i : i + length].addcmul_(grad, taps[i])
            grad_taps[i] = (grad * x[:, i : i + length]).sum((0, 1))
        grad_bias = grad.sum((0, 1)) if ctx.needs_input_grad[2] else None
        return grad_x, grad_taps.T, grad_bias, None
