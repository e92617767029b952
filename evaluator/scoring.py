"""The score, computed outside: a fresh child turns held-out inputs into hidden states, no more.

Labels, head and loss never leave the supervisor. Inputs do hold the next tokens' labels, so a
second fresh child gets some prefixes alone: it cannot use what it was not sent, nor remember what
the first one saw, and must give the same hidden states. Of a model that sees the future at a share
s of its positions, (1 - s)^n get through with n positions compared: 1 in 1000 at 4 % and n = 168.
"""

from __future__ import annotations

import math
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
_N_PREFIXES = 24  # lengths that are asked for
_ROWS_PER_PREFIX = 8  # in one call, which costs hardly more than a single row
_SLACK_BYTES = 1 << 16
# How far a prediction may move, in nats, when the tokens after it are not sent. Another length and
# batch run other sums in another order: about 1e-6 in float32 and 1e-2 in bfloat16.
_TOLERANCES = {"fp32": 2e-3, "bf16": 0.1}

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
    prefix_shift_nats: float  # the largest seen


def score(
    new_child: NewChild,
    held_out: HeldOut,
    weights: Mapping[str, Tensor],
    precision: str,
    then: Callable[[Child], None] | None = None,
) -> Score:
    """Scores the model that `new_child()` holds with `weights` loaded, each time in a new process.

    `then` is called with the second child, which has shown that it keeps to prefixes.
    Raises TrialStopped: "diverged" for hidden states or a loss that are not finite, "protocol" for
    others than [N, T, D] in float32, "noncausal" if prefixes alone predict otherwise, or how the
    child failed.
    """
    head = weights[HEAD]
    rng = random.SystemRandom()
    with new_child() as child:
        hidden = _hidden_in_order(child, held_out.inputs, head.shape[1], precision, rng)
    nats, n_correct = sum_nats(hidden, head, held_out.labels)
    with new_child() as child:
        shift = _check_prefixes(child, held_out, hidden, head, precision, rng)
        if then is not None:
            then(child)
    n_labels = int((held_out.labels != IGNORED_LABEL).sum())
    return Score(nats=nats, n_labels=n_labels, n_correct=n_correct, prefix_shift_nats=shift)


def _hidden_in_order(
    child: Child, inputs: Tensor, width: int, precision: str, rng: random.Random
) -> Tensor:
    """Hidden states [N, T, D] of all rows, asked for in an order that is new each time."""
    n_rows, length = inputs.shape
    hidden = torch.empty(n_rows, length, width)
    parts = torch.split(torch.arange(n_rows), max(1, _TOKENS_PER_CALL // length))
    for rows in rng.sample(parts, len(parts)):
        hidden[rows] = ask_hidden(child, inputs[rows], width, precision)
    return hidden


def _check_prefixes(
    child: Child,
    held_out: HeldOut,
    hidden: Tensor,
    head: Tensor,
    precision: str,
    rng: random.Random,
) -> float:
    """The largest shift in nats; raises TrialStopped("noncausal") for one beyond the tolerance."""
    length = hidden.shape[1]
    is_scored = held_out.labels[:, :-1] != IGNORED_LABEL  # [N, T - 1]
    scored = is_scored.nonzero()  # [labels, 2]: row, position
    largest = 0.0
    for i in rng.sample(range(len(scored)), min(_N_PREFIXES, len(scored))):
        position = int(scored[i, 1])
        rows = is_scored[:, position].nonzero()[:, 0].tolist()
        rows = rng.sample(rows, min(_ROWS_PER_PREFIX, len(rows)))
        prefixes = held_out.inputs[rows, : position + 1]
        alone = ask_hidden(child, prefixes, head.shape[1], precision)[:, -1]  # [rows, D]
        labels = held_out.labels[rows, position]
        shift = _shift_nats(alone, hidden[rows, position], head, labels)
        largest = max(largest, shift)
        if shift > _TOLERANCES[precision]:
            raise TrialStopped(
                "noncausal",
                f"scoring: without the tokens after it, the prediction at position {position} of "
                f"{length} moves by {shift:.2g} nats ({_TOLERANCES[precision]:g} are allowed)",
            )
    return largest


def _shift_nats(alone: Tensor, within: Tensor, head: Tensor, labels: Tensor) -> float:
    """How far apart predictions [rows, D] are at most: on the label, or as RMS over what they say.

    Predictions, not hidden states, because a large channel that the head ignores would make any
    leak beside it relatively small.
    """
    both = torch.stack([alone, within]).double() @ head.double().T  # [2, rows, vocabulary]
    log_p = F.log_softmax(both, dim=-1)
    gap = log_p[0] - log_p[1]
    rms = (log_p.exp().mean(0) * gap.square()).sum(-1).sqrt()
    on_labels = gap.gather(-1, labels[:, None]).abs()
    return max(rms.max().item(), on_labels.max().item())


def ask_hidden(
    child: Child, tokens: Tensor, width: int, precision: str, *, train: bool = False
) -> Tensor:
    """One checked reply: hidden states [B, T, D] of tokens [B, T]; raises TrialStopped."""
    expected = (*tokens.shape, width)
    reply_bytes = 4 * tokens.numel() * width + _SLACK_BYTES
    with stops_on_failure("scoring"):
        reply = child.call(
            "hidden",
            {"precision": precision, "train": train},
            {"tokens": tokens},
            reply_bytes=reply_bytes,
        )
    hidden = reply.tensors.get("hidden")
    if hidden is None or hidden.shape != expected or hidden.dtype != torch.float32:
        found = None if hidden is None else f"{hidden.dtype} {list(hidden.shape)}"
        wanted = f"torch.float32 {list(expected)}"
        raise TrialStopped("protocol", f"scoring: hidden states are {found}, not {wanted}")
    if not hidden.isfinite().all():
        raise TrialStopped("diverged", "scoring: hidden states are not finite")
    return hidden


def sum_nats(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[float, int]:
    """Summed cross entropy in nats and how many labels had the largest logit; of hidden states
    [N, T, D], a head [V, D] and labels [N, T]. Raises TrialStopped if it is not finite.
    """
    nats = 0.0
    n_correct = 0
    rows_at_once = max(1, _TOKENS_PER_CALL // hidden.shape[1])
    for rows in torch.split(torch.arange(len(hidden)), rows_at_once):
        logits = (hidden[rows] @ head.T).flatten(0, 1)
        flat = labels[rows].flatten()
        nats += F.cross_entropy(logits, flat, ignore_index=IGNORED_LABEL, reduction="sum").item()
        n_correct += int((logits.argmax(-1) == flat).sum())
    if not math.isfinite(nats):
        raise TrialStopped("diverged", "scoring: the loss is not finite")
    return nats, n_correct
