"""linear_cross_entropy's Triton form: the same few rows of logits at a time, but one kernel for
their loss and, written over them, their gradient. The products stay torch's.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import operator
from .tiles import LOG2_E, power_of_two

_COLUMNS = 4096  # at once


def loss_and_gradient_fused(
    logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """Triton's `Step` (chunked/cross_entropy.py)."""
    return _loss_of_rows(logits, targets, share, with_grad), logits


@operator("cross_entropy_rows", mutates_args=("logits",))
def _loss_of_rows(logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool) -> Tensor:
    """The rows' losses times their shares, summed; with_grad leaves their gradient in `logits`.

    logits: [N, V] contiguous; targets: int64 [N]; share: float32 [N], 0 for rows to ignore.
    """
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    columns = min(_COLUMNS, triton.next_power_of_2(width))
    cross_entropy_kernel[(rows,)](
        logits, targets, share, losses, width,
        BV=columns, GRAD=with_grad, num_warps=8 if columns > 1024 else 4,
    )  # fmt: skip
    return losses.sum()


@_loss_of_rows.register_fake
def _loss_shape(logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool) -> Tensor:
    return share.new_empty(())


@triton.jit
def cross_entropy_kernel(
    logits_ptr, targets_ptr, share_ptr, losses_ptr, width, BV: tl.constexpr, GRAD: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets_ptr + row)
    share = tl.load(share_ptr + row)
    at = logits_ptr + row * width
    columns = tl.arange(0, BV)
    of_target = tl.load(at + target).to(tl.float32)
    # The highest so far is one number for all columns: one exponential a logit, not two.
    highest = float("-inf")
    totals = tl.zeros((BV,), dtype=tl.float32)
    for begin in range(0, width, BV):
        mask = begin + columns < width
        x = tl.load(at + begin + columns, mask=mask, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        # While all are -inf there is nothing to add yet, and their difference would be NaN.
        level = tl.where(higher == float("-inf"), 0.0, higher)
        totals *= power_of_two((highest - level) * LOG2_E)
        totals += power_of_two((x - level) * LOG2_E)
        highest = higher
    total = tl.sum(totals, 0)
    tl.store(losses_ptr + row, (tl.log(total) + highest - of_target) * share)
    if GRAD:
        for begin in range(0, width, BV):
            mask = begin + columns < width
            x = tl.load(at + begin + columns, mask=mask, other=float("-inf")).to(tl.float32)
            grad = power_of_two((x - highest) * LOG2_E) * (share / total)
            grad -= tl.where(begin + columns == target, share, 0.0)
            tl.store(at + begin + columns, grad, mask=mask)
