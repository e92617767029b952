"""What a training child left behind, as far as it can be believed: files, counted and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoint import CHECKPOINT_OUT, WEIGHTS
from .sandbox.protocol import ProtocolError, load_tensors
from .scoring import HEAD
from .stopped import TrialStopped

_NUMBER_BYTES = 4  # of an honest parameter, in float32


def checked_weights(
    data: bytes,
    model: Mapping[str, Any],
    shapes: object,
    expected_params: int,
    tolerance: float,
) -> dict[str, Tensor]:
    """The weights, if they are finite, hold the head and are as many as the budget allows.

    Buffers count with the parameters, or they would be a place to hide some; `tolerance` (relative)
    leaves room for honest ones. A number wider than float32 counts as several, which it could be.
    `shapes`: what the child said of its tensors, by name, before it had learned anything; other
    names or shapes could hold what was learned. Raises TrialStopped.
    """
    weights = _load(data, WEIGHTS)
    if {name: list(tensor.shape) for name, tensor in weights.items()} != shapes:
        raise TrialStopped("protocol", f"{WEIGHTS} holds other tensors than before training")
    head = weights.get(HEAD)
    if head is None or head.shape != (model["vocab_size"], model["d_model"]):
        raise TrialStopped("protocol", f"{WEIGHTS} holds no {HEAD} of the right shape")
    n_numbers = sum(_count_numbers(tensor) for tensor in weights.values())
    if abs(n_numbers - expected_params) > tolerance * expected_params:
        reason = f"{WEIGHTS} holds {n_numbers} numbers where {expected_params} are the budget"
        raise TrialStopped("protocol", reason)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise TrialStopped("diverged", "training: the weights are not finite")
    return {**weights, HEAD: head.float()}


def stored_step(checkpoint: bytes) -> int:
    """After how many steps it was taken; raises TrialStopped("protocol") if it does not say."""
    step = _load(checkpoint, CHECKPOINT_OUT).get("step")
    if step is None or step.shape != () or step.dtype != torch.int64:
        raise TrialStopped("protocol", f"{CHECKPOINT_OUT} holds no step")
    return int(step)


def _count_numbers(tensor: Tensor) -> int:
    return max(tensor.numel(), -(-tensor.nbytes // _NUMBER_BYTES))


def _load(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        return load_tensors(data)
    except ProtocolError as error:
        raise TrialStopped("protocol", f"{name}: {error}") from None
