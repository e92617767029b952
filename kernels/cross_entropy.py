"""linear_cross_entropy: the language-model head and its loss without ever holding all logits.

    loss = mean over n of  log sum_j exp(hidden_n . head_j) - hidden_n . head_target(n)    [nats]

(the chunking of Liger Kernel, arXiv 2410.10989.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments, values_are_checked
from .chunked.cross_entropy import cross_entropy_chunks, loss_and_gradient
from .forms import Form, choose_form
from .naive.cross_entropy import cross_entropy_loop
from .precision import without_autocast

# On a CPU what its caches hold, elsewhere what keeps the products large and the additions to the
# head's gradient, one for each chunk, few. Triton's form holds no float32 copies of them.
_LOGITS_AT_ONCE_ON_CPU, _LOGITS_AT_ONCE, _LOGITS_AT_ONCE_IN_TRITON = 2**18, 2**25, 2**27


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    chunk: int | None = None,
    form: Form | None = None,
) -> Tensor:
    """Mean loss in nats over the targets that are not `ignore_index`; NaN if all of them are.

    hidden: [N, D]; head: [V, D]; targets: int64 [N] in 0 to V - 1.
    chunk: rows whose logits exist at once; None: 1 MiB of them on a CPU, 128 MiB elsewhere, 256 MiB
    in bfloat16 in the Triton form.
    Products run in the autocast dtype where autocast is on, else in the wider of the two dtypes;
    the loss is a float32 (float64 for float64 inputs) scalar. ValueError for arguments that do not
    fit each other.
    """
    check = Arguments("linear_cross_entropy")
    check.tensor("hidden", hidden, "N D")
    check.tensor("head", head, "V D")
    check.placed("targets", targets)
    if targets.dtype != torch.int64:
        raise check.error(f"targets has dtype {targets.dtype}; wanted torch.int64")
    check.shape("targets", targets, "N")
    if chunk is not None and chunk < 1:
        raise check.error(f"chunk is {chunk}; wanted 1 or more, or None")
    if values_are_checked():
        _check_targets(check, targets, head.shape[0], ignore_index)
    dtype = _product_dtype(hidden, head)
    form = choose_form(form, fused_on=None if dtype == torch.float64 else hidden.device)
    if form == "naive":
        dtype = torch.promote_types(dtype, torch.float32)
        return _loop(hidden.to(dtype), head.to(dtype), targets, ignore_index)
    step, at_once = loss_and_gradient, _LOGITS_AT_ONCE
    if form == "triton":
        from .triton.cross_entropy import loss_and_gradient_fused

        step, at_once = loss_and_gradient_fused, _LOGITS_AT_ONCE_IN_TRITON
    elif hidden.device.type == "cpu":
        at_once = _LOGITS_AT_ONCE_ON_CPU
    if chunk is None:
        chunk = max(at_once // head.shape[0], 1)
    return _chunks(hidden.to(dtype), head.to(dtype), targets, ignore_index, chunk, step)


_loop = without_autocast(cross_entropy_loop)
_chunks = without_autocast(cross_entropy_chunks)


def _product_dtype(hidden: Tensor, head: Tensor) -> torch.dtype:
    device = hidden.device.type
    wider = torch.promote_types(hidden.dtype, head.dtype)
    if wider != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return wider


def _check_targets(check: Arguments, targets: Tensor, vocabulary: int, ignore_index: int) -> None:
    counted = targets[targets != ignore_index]
    if counted.numel() and not bool(((counted >= 0) & (counted < vocabulary)).all()):
        lowest, highest = int(counted.min()), int(counted.max())
        raise check.error(
            f"targets has values from {lowest} to {highest}; wanted 0 to V - 1 = {vocabulary - 1}"
        )
