"""The score, computed outside: a fresh child turns held-out inputs into hidden states, no more.

Labels, head and loss never leave the supervisor. Inputs do hold the next tokens' labels, so a
second fresh child gets some prefixes alone: it cannot use what it was not sent, nor remember what
the first one saw, and must give the same hidden states.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .sandbox.handle import Child
from .stopped import TrialStopped, stops_on_failure
from .tasks import IGNORED_LABEL

HEAD = "embedding.weight"
_TOKENS_PER_CALL = 4096
_N_PREFIXES = 6
_ROWS_PER_PREFIX = 4
_SLACK_BYTES = 1 << 16
# Relative RMS of the difference at one position: another length runs other chunks in another order.
_TOLERANCES = {"fp32": 1e-3, "bf16": 5e-2}

NewChild = Callable[[], AbstractContextManager[Child]]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """inputs and labels int64 [N, T]; labels of -100 are not scored."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    nats: float  # summed over the labels
    n_labels: int
    n_correct: int
    prefix_difference: float  # the largest relative one seen


def score(
    new_child: NewChild, held_out: HeldOut, weights: Mapping[str, Tensor], precision: str
) -> Score:
    """Scores the model that `new_child()` holds with `weights` loaded, each time in a new process.

    Raises TrialStopped: "diverged" for hidden states that are not finite, "protocol" for others
    than [N, T, D] in float32, "noncausal" if a prefix alone gives other ones, or how it failed.
    """
    head = weights[HEAD]
    rng = random.SystemRandom()
    with new_child() as child:
        hidden = _hidden_in_order(child, held_out.inputs, head.shape[1], precision, rng)
    with new_child() as child:
        difference = _check_prefixes(child, held_out.inputs, hidden, precision, rng)
    nats, n_correct = _apply_head(hidden, head, held_out.labels)
    n_labels = int((held_out.labels != IGNORED_LABEL).sum())
    return Score(nats=nats, n_labels=n_labels, n_correct=n_correct, prefix_difference=difference)


def _hidden_in_order(
    child: Child, inputs: Tensor, width: int, precision: str, rng: random.Random
) -> Tensor:
    """Hidden states [N, T, D] of all rows, asked for in an order that is new each time."""
    n_rows, length = inputs.shape
    hidden = torch.empty(n_rows, length, width)
    parts = torch.split(torch.arange(n_rows), max(1, _TOKENS_PER_CALL // length))
    for rows in rng.sample(parts, len(parts)):
        hidden[rows] = _ask(child, inputs[rows], width, precision)
    return hidden


def _check_prefixes(
    child: Child, inputs: Tensor, hidden: Tensor, precision: str, rng: random.Random
) -> float:
    """The largest relative difference; raises TrialStopped("noncausal") beyond the tolerance."""
    n_rows, length, width = hidden.shape
    tolerance = _TOLERANCES[precision]
    largest = 0.0
    for n_seen in rng.sample(range(1, length), min(_N_PREFIXES, length - 1)):
        rows = torch.tensor(rng.sample(range(n_rows), min(_ROWS_PER_PREFIX, n_rows)))
        alone = _ask(child, inputs[rows, :n_seen], width, precision)[:, -1]  # [rows, D]
        within = hidden[rows, n_seen - 1]
        gaps = (alone - within).norm(dim=-1) / alone.norm(dim=-1).clamp_min(1e-12)
        largest = max(largest, gaps.max().item())
        if largest > tolerance:
            raise TrialStopped(
                "noncausal",
                f"scoring: without the tokens after it, the hidden state of token {n_seen} of "
                f"{length} differs by {largest:.2g} of its norm ({tolerance:g} is allowed)",
            )
    return largest


def _ask(child: Child, tokens: Tensor, width: int, precision: str) -> Tensor:
    """One checked reply: hidden states [B, T, D] of tokens [B, T]."""
    expected = (*tokens.shape, width)
    reply_bytes = 4 * tokens.numel() * width + _SLACK_BYTES
    with stops_on_failure("scoring"):
        reply = child.call(
            "hidden", {"precision": precision}, {"tokens": tokens}, reply_bytes=reply_bytes
        )
    hidden = reply.tensors.get("hidden")
    if hidden is None or hidden.shape != expected or hidden.dtype != torch.float32:
        found = None if hidden is None else f"{hidden.dtype} {list(hidden.shape)}"
        wanted = f"torch.float32 {list(expected)}"
        raise TrialStopped("protocol", f"scoring: hidden states are {found}, not {wanted}")
    if not hidden.isfinite().all():
        raise TrialStopped("diverged", "scoring: hidden states are not finite")
    return hidden


def _apply_head(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[float, int]:
    """Summed cross entropy in nats and how many labels had the largest logit."""
    nats = 0.0
    n_correct = 0
    rows_at_once = max(1, _TOKENS_PER_CALL // hidden.shape[1])
    for rows in torch.split(torch.arange(len(hidden)), rows_at_once):
        logits = (hidden[rows] @ head.T).flatten(0, 1)
        flat = labels[rows].flatten()
        nats += F.cross_entropy(logits, flat, ignore_index=IGNORED_LABEL, reduction="sum").item()
        n_correct += int((logits.argmax(-1) == flat).sum())
    return nats, n_correct
