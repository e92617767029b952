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

_AT_ONCE, _MOST_ROWS = 4096, 16  # logits of a program, and the rows that they may be of


def loss_and_gradient_fused(
    logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """Triton's `Step` (chunked/cross_entropy.py)."""
    return _loss_of_rows(logits, targets, share, with_grad), logits


@operator("cross_entropy_rows", mutates_args=("logits",))
def _loss_of_rows(logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool) -> Tensor:
    """The rows' losses times their shares, summed; with_grad leaves their gradient in `logits`.

    logits: [N, V], a row's adjacent; targets: int64 [N]; share: float32 [N], 0 for rows to ignore.
    Where rows are multiples of 16 apart, what lies behind V up to the next 16 is theirs as well: it
    counts for nothing and is overwritten.
    """
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    room = -(-width // 16) * 16 if logits.stride(0) % 16 == 0 else width
    columns = min(_AT_ONCE, triton.next_power_of_2(width))
    block = min(_AT_ONCE // columns, _MOST_ROWS)
    cross_entropy_kernel[(triton.cdiv(rows, block),)](
        logits, targets, share, losses, rows, width, room, logits.stride(0),
        BR=block, BV=columns, GRAD=with_grad, num_warps=8,
    )  # fmt: skip
    return losses.sum()


@_loss_of_rows.register_fake
def _loss_shape(logits: Tensor, targets: Tensor, share: Tensor, with_grad: bool) -> Tensor:
    return share.new_empty(())


@triton.jit(do_not_specialize=["rows", "width"])
def cross_entropy_kernel(
    logits_ptr, targets_ptr, share_ptr, losses_ptr, rows, width, room, stride,
    BR: tl.constexpr, BV: tl.constexpr, GRAD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    is_row = row < rows
    target = tl.load(targets_ptr + row, mask=is_row, other=0)
    share = tl.load(share_ptr + row, mask=is_row, other=0.0)
    at = logits_ptr + row.to(tl.int64) * stride
    columns = tl.arange(0, BV)
    of_target = tl.load(at + target, mask=is_row, other=0.0).to(tl.float32)
    # The highest so far is one number for a row's columns: one exponential a logit, not two.
    highest = tl.full((BR,), float("-inf"), dtype=tl.float32)
    totals = tl.zeros((BR, BV), dtype=tl.float32)
    for begin in range(0, width, BV):
        x = _logits(at, begin + columns, is_row, width, room)
        higher = tl.maximum(highest, tl.max(x, 1))
        # While all are -inf there is nothing to add yet, and their difference would be NaN.
        level = tl.where(higher == float("-inf"), 0.0, higher)
        totals *= power_of_two((highest - level) * LOG2_E)[:, None]
        totals += power_of_two((x - level[:, None]) * LOG2_E)
        highest = higher
    total = tl.sum(totals, 1)
    tl.store(losses_ptr + row, (tl.log(total) + highest - of_target) * share, mask=is_row)
    if GRAD:
        for begin in range(0, width, BV):
            x = _logits(at, begin + columns, is_row, width, room)
            grad = power_of_two((x - highest[:, None]) * LOG2_E) * (share / total)[:, None]
            grad -= tl.where(begin + columns[None, :] == target[:, None], share[:, None], 0.0)
            mask = is_row[:, None] & (begin + columns < room)[None, :]
            tl.store(at[:, None] + begin + columns[None, :], grad, mask=mask)


@triton.jit
def _logits(at, columns, is_row, width, room):
    """[BR, BV] in float32, -inf beyond a row's columns."""
    mask = is_row[:, None] & (columns < room)[None, :]
    x = tl.load(at[:, None] + columns[None, :], mask=mask, other=float("-inf")).to(tl.float32)
    return tl.where((columns < width)[None, :], x, float("-inf"))
