"""Torch form of `rms_norm`: one autograd function that keeps only x, 1/rms(x) and the gate.

That of `l2_norm` is torch's own operations and gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def norm_fused(
    x: Tensor,  # [..., D]
    weight: Tensor,  # [D]
    gate: Tensor | None,  # [..., D]
    activation: str,
    eps: float,
) -> Tensor:
    y: Tensor = _Norm.apply(x, weight, gate, activation == "silu", eps)
    return y


def of_unit_length(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gate: Tensor | None, silu: bool, eps: float
    ) -> Tensor:
        inverse_rms = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        y = (x * inverse_rms).mul_(weight)
        ctx.save_for_backward(x, weight, gate, inverse_rms)
        ctx.silu = silu
        if gate is None:
            return y
        return y.mul_(F.silu(gate) if silu else gate.sigmoid())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate, inverse_rms = ctx.saved_tensors
        normed = x * inverse_rms
        grad_gate = None
        if gate is not None:
            grad, grad_gate = _pull_gate(grad, normed * weight, gate, ctx.silu)
        grad_weight = (grad * normed).reshape(-1, weight.shape[0]).sum(0)
        grad_normed = grad * weight
        along = (grad_normed * normed).mean(-1, keepdim=True)
        grad_x = grad_normed.sub_(normed.mul_(along)).mul_(inverse_rms)
        return grad_x, grad_weight, grad_gate, None, None


def _pull_gate(grad: Tensor, y: Tensor, gate: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    """From the gradient of y * act(gate), those of y and of gate."""
    if silu:
        return grad * F.silu(gate), torch.ops.aten.silu_backward(grad * y, gate)
    opened = gate.sigmoid()
    return grad * opened, torch.ops.aten.sigmoid_backward(grad * y, opened)
