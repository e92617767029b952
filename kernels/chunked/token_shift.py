"""Torch form of `token_shift`: a pass for each blend, gradients written by hand.

The blends are never one tensor, so that none is taken apart, nor are their gradients put together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import working_dtype


def token_shift_of_rows(
    x: Tensor,  # [B, T, D]
    shares: Tensor,  # [n, B, T, D], or ones in the places of B and T
    before: Tensor,  # [B, 1, D], the token before x
) -> tuple[Tensor, ...]:
    """n blends, each [B, T, D]."""
    blends: tuple[Tensor, ...] = _TokenShift.apply(x, shares, before)
    return blends


class _TokenShift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        change = torch.cat((before, x[:, :-1]), dim=1) - x
        ctx.save_for_backward(change, shares)
        return tuple(torch.addcmul(x, change, share) for share in shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        change, shares = ctx.saved_tensors
        dshares = torch.empty_like(shares)
        dx = torch.zeros_like(change, dtype=working_dtype(change))
        dchange = torch.zeros_like(dx)
        for grad, share, dshare in zip(grads, shares, dshares, strict=True):
            dx += grad
            dchange.addcmul_(grad, share)
            if dshare.shape == grad.shape:
                torch.mul(grad, change, out=dshare)
            else:
                dshare.copy_((grad * change).sum_to_size(dshare.shape))
        dx -= dchange
        dx[:, :-1] += dchange[:, 1:]
        return dx.to(change.dtype), dshares, dchange[:, :1].to(change.dtype)
