"""Chunked form of `linear_cross_entropy`: logits of a few rows at a time.

The gradients are made in the forward pass while a chunk's logits exist, and scaled in the backward
pass (as in Liger Kernel, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# torch 2.8 and 2.9 want what `addmm` adds to in the dtype of the product's operands.
_PRODUCTS_ADD_TO_FLOAT32 = torch.version.cuda is not None and torch.__version__ >= "2.11"

# (logits, targets, share of each row in the mean, whether a gradient is wanted) -> the loss and the
# logits' gradient in their dtype; the logits may be overwritten.
Step = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]


def cross_entropy_chunks(
    hidden: Tensor,  # [N, D]
    head: Tensor,  # [V, D]
    targets: Tensor,  # int64 [N]
    ignore_index: int,
    chunk: int,
    step: Step,
) -> Tensor:
    needs_grad = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    loss: Tensor = _CrossEntropy.apply(hidden, head, targets, ignore_index, chunk, needs_grad, step)
    return loss


def loss_and_gradient(
    logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """torch's `Step`."""
    wide, column, share = logits.to(share.dtype), targets[:, None], share[:, None]
    of_target, largest = wide.gather(1, column), wide.amax(-1, keepdim=True)
    exponentials = wide.sub_(largest).exp_()
    total = exponentials.sum(-1, keepdim=True)
    loss = ((total.log() + largest - of_target) * share).sum()
    if not with_grad:
        return loss, logits
    grad = exponentials.mul_(share / total).scatter_add_(1, column, -share)
    return loss, grad.to(logits.dtype)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        ignore_index: int,
        chunk: int,
        needs_grad: bool,
        step: Step,
    ) -> Tensor:
        kept = targets != ignore_index
        weight = kept.to(_sum_dtype(hidden)) / kept.sum()  # of each row in the mean
        targets = targets.where(kept, 0)
        loss = weight.new_zeros(())
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_head = torch.zeros_like(head, dtype=loss.dtype) if needs_grad else None
        filled_up = _filled_up(head)
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            logits = torch.mm(hidden[rows], filled_up.T)[:, : head.shape[0]]
            part, grad = step(logits, targets[rows], weight[rows], needs_grad)
            loss += part
            if grad_hidden is None or grad_head is None:
                continue
            torch.mm(grad, head, out=grad_hidden[rows])
            _add_product(grad_head, grad.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        grad_head = (grad_head * grad).to(ctx.head_dtype)
        return (grad_hidden * grad).to(grad_hidden.dtype), grad_head, None, None, None, None, None


def _filled_up(head: Tensor) -> Tensor:
    """With zeros up to a multiple of 16 words: rows of logits then begin where products and kernels
    can load 16 bytes at once.
    """
    missing = -head.shape[0] % 16
    return F.pad(head, (0, 0, 0, missing)) if missing else head


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, which is not rounded to the dtype of a and b first where products allow it."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.is_cuda and _PRODUCTS_ADD_TO_FLOAT32:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += torch.mm(a, b)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
