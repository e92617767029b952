"""The score, computed outside: fresh children turn held-out inputs into hidden states, no more.

Labels, head and loss never leave the supervisor. Inputs do hold the next tokens' labels, so the
score of whole rows is corrected by what a second child says, which gets each row in pieces and has
not been sent the label that is scored at a piece's end. Ends are drawn anew each time, one at each
position that has labels, so the corrected score is, on average, that of a model that never saw a
token too early: a leak is worth nothing, found or not. A third child goes on from the state alone,
and must agree.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .hidden_states import ModelStream, ask_hidden, form_of
from .results import TrialStatus
from .sandbox.handle import Child
from .stopped import TrialStopped
from .tasks import IGNORED_LABEL

HEAD = "embedding.weight"
_TOKENS_PER_CALL = 4096
_LOGITS_AT_ONCE = 1 << 26  # over a large vocabulary fewer tokens are predicted at once
# Pieces cost two to three times what whole rows do, so no more are read than find a leak.
_STREAMED_ROWS = 192
_GROUPS = 4
_MOST_ENDS = 256  # of pieces, over all groups: each is a call
_HANDED_ROWS = 32
_ENDS_HANDED = 16
# Pieces run other sums in another order, which in float32 moves a prediction by about 1e-5 nats: by
# this much it may. What stays below it is no rejection, and wins nothing: the score is corrected by
# it. Below half a thousandth it is rounding, and left out: equal weights have equal scores.
_TOLERANCE = 2e-3
_ROUNDING = {"fp32": 5e-4, "bf16": 0.0}
# In bfloat16 other sums move a model that is sure of itself, or tracks a state over more tokens
# than it learned to, by 0.1 to 20 nats; but as often for the better. A leak moves for the worse
# when the label is not sent. So moves of a label by more than this many nats are counted, by rows,
# whose neighbours move together, and this is how rarely chance may find so many for the worse.
_LARGE_MOVE = 0.5
_CHANCE = 1e-5

NewChild = Callable[[], AbstractContextManager[Child]]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """inputs and labels int64 [N, T]; labels of -100 are not scored. `n_bytes` is how much text the
    labels stand for, None where they are no text.
    """

    inputs: Tensor
    labels: Tensor
    n_bytes: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """`nats` and `n_correct` are sums over the labels, corrected by what pieces say.

    `nats_by_row` [N], to float32, adds up to `nats`: the correction, which is one number for all
    rows, is spread evenly over them.
    `prefix_shift_nats` is the largest difference between the two that was seen; `cpu_s_per_token`
    what whole rows took of the child's processor, None where it cannot be told;
    `state_bytes_per_row` the size of the state that was handed over; `state_keeps_form` whether its
    names, shapes and types were those after the first token, so that they tell nothing of the rows.
    """

    nats: float
    nats_by_row: tuple[float, ...]
    n_labels: int
    n_correct: float
    prefix_shift_nats: float
    cpu_s_per_token: float | None
    state_bytes_per_row: float
    state_keeps_form: bool


@dataclass(kw_only=True, slots=True)
class _Gap:
    """What pieces say less what whole rows say, summed; and the largest move of a prediction."""

    nats: float = 0.0
    n_correct: float = 0.0
    shift_nats: float = 0.0


def score(
    new_child: NewChild,
    held_out: HeldOut,
    weights: Mapping[str, Tensor],
    precision: str,
    then: Callable[[Child], None] | None = None,
) -> Score:
    """Scores the model that `new_child()` holds with `weights` loaded, each time in a new process.

    `then` is called with the last child, which has seen no row from its start.
    Raises TrialStopped: "diverged" for hidden states or a loss that are not finite, "protocol" for
    others than float32 of the right shape, "noncausal" if pieces predict otherwise, "unsound" if
    the state alone does, or how the child failed.
    """
    head = weights[HEAD]
    rng = random.SystemRandom()
    with new_child() as child:
        before = child.cpu_s
        hidden = _hidden_in_order(child, held_out.inputs, head.shape[1], precision, rng)
        cpu_s = difference(before, child.cpu_s)
    whole = sum_nats(hidden, head, held_out.labels)
    check = _StreamCheck(held_out, hidden, head, precision, rng)
    with new_child() as child:
        check.run(ModelStream(child, head.shape[1], precision))
        handed = check.hand_over(ModelStream(child, head.shape[1], precision))
    with new_child() as child:
        check.go_on(ModelStream(child, head.shape[1], precision), handed)
        if then is not None:
            then(child)
    n_labels = int((held_out.labels != IGNORED_LABEL).sum())
    return Score(
        nats=whole.nats + check.gap.nats,
        nats_by_row=tuple((whole.by_row + check.gap.nats / len(whole.by_row)).float().tolist()),
        n_labels=n_labels,
        n_correct=min(max(whole.n_correct + check.gap.n_correct, 0.0), float(n_labels)),
        prefix_shift_nats=check.gap.shift_nats,
        cpu_s_per_token=None if cpu_s is None else cpu_s / held_out.inputs.numel(),
        state_bytes_per_row=handed.state_bytes / len(handed.rows),
        state_keeps_form=handed.keeps_form,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Handed:
    """Rows that stopped after `position` tokens, and the state that they stopped with."""

    rows: Tensor
    position: int
    state: dict[str, Tensor]
    keeps_form: bool

    @property
    def state_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.state.values())


class _StreamCheck:
    """Compares `hidden` [N, T, D] of whole rows with what a model says that reads them in pieces.

    Rows are read in groups, and each position with labels ends a piece in one of them, drawn at
    random; what is said otherwise there counts for all groups. Raises TrialStopped for predictions
    that move too far, or too often for the worse.
    """

    def __init__(
        self, held_out: HeldOut, hidden: Tensor, head: Tensor, precision: str, rng: random.Random
    ) -> None:
        self._inputs, self._labels = held_out.inputs, held_out.labels
        self._hidden, self._head = hidden, head.double()
        self._is_exact, self._rounding = precision == "fp32", _ROUNDING[precision]
        self._moved: list[Tensor] = []  # nats lost by each row's large moves, where it has any
        self._rng = rng
        n_rows, self._length = held_out.inputs.shape
        streamed = rng.sample(range(n_rows), min(n_rows, _STREAMED_ROWS))
        self._groups = torch.tensor(streamed).chunk(_GROUPS)
        self.gap = _Gap()

    def run(self, stream: ModelStream) -> None:
        # The last position's label is in no input, so nothing there can be a leak.
        is_asked = (self._labels[:, :-1] != IGNORED_LABEL).any(0)
        asked = is_asked.nonzero().flatten().tolist()
        ended = self._rng.sample(asked, min(len(asked), _MOST_ENDS))
        group_of = {position: self._rng.randrange(len(self._groups)) for position in ended}
        for group, rows in enumerate(self._groups):
            ends = [position + 1 for position in ended if group_of[position] == group]
            weight = len(self._inputs) / len(rows) * len(asked) / max(1, len(ended))
            stream.start()
            said, positions = self._read(stream, rows, 0, [*sorted(ends), self._length])
            self._compare(said, rows, positions, "noncausal", weight)
        self._weigh("noncausal")

    def hand_over(self, stream: ModelStream) -> _Handed:
        """Some rows, up to a position in the middle half."""
        rows = torch.cat(self._groups)[:_HANDED_ROWS]
        quarter = self._length // 4
        position = self._rng.randrange(max(1, quarter), max(2, self._length - quarter))
        stream.start()
        self._read(stream, rows, 0, [1])
        state = stream.state()
        form = form_of(state)
        if position > 1:
            self._read(stream, rows, 1, [position])
            state = stream.state()
        return _Handed(rows=rows, position=position, state=state, keeps_form=form == form_of(state))

    def go_on(self, stream: ModelStream, handed: _Handed) -> None:
        """The same rows from there, by a model that was sent their state and nothing before."""
        stream.go_on_from(handed.state)
        to_come = range(handed.position + 1, self._length)
        ends = self._rng.sample(to_come, min(len(to_come), _ENDS_HANDED))
        said, positions = self._read(
            stream, handed.rows, handed.position, [*sorted(ends), self._length]
        )
        self._compare(said, handed.rows, positions, "unsound", 0.0)
        self._weigh("unsound")

    def _read(
        self, stream: ModelStream, rows: Tensor, first: int, ends: list[int]
    ) -> tuple[Tensor, Tensor]:
        """What is said at each end: hidden states [ends, rows, D], and their positions [ends]."""
        pieces = pairwise([first, *ends])
        said = [stream.feed(self._inputs[rows, start:end]) for start, end in pieces]
        return torch.stack(said), torch.tensor(ends) - 1

    def _compare(
        self, said: Tensor, rows: Tensor, positions: Tensor, status: TrialStatus, weight: float
    ) -> None:
        """Books the gap, each label's times `weight`; raises TrialStopped(status)."""
        labels = self._labels[rows][:, positions].T  # [ends, rows]
        is_scored = labels != IGNORED_LABEL
        if not is_scored.any():
            return
        whole = self._hidden[rows][:, positions].transpose(0, 1)  # [ends, rows, D]
        both = torch.stack([said[is_scored], whole[is_scored]])  # [2, labels, D]
        labels = labels[is_scored]
        on_labels, is_right, shifts = self._predictions(both, labels)
        more_nats = on_labels[1] - on_labels[0]
        self.gap.shift_nats = max(self.gap.shift_nats, shift := shifts.max().item())
        if not self._is_exact:
            self._moved.append(_large_moves(more_nats, is_scored))
        elif not shift <= _TOLERANCE:
            where = positions[:, None].expand_as(is_scored)[is_scored]
            raise self._stopped(_move(int(where[shifts.argmax()]), self._length, shift), status)
        has_moved = shifts > self._rounding
        self.gap.nats += weight * more_nats[has_moved].sum().item()
        self.gap.n_correct += weight * (is_right[0] - is_right[1])[has_moved].sum().item()

    def _predictions(self, both: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of two hidden states for each label [2, N, D]: its log p [2, N], whether it is the most
        likely one (1 or 0) [2, N], and how far the two predictions are apart [N].
        """
        found = []
        n_at_once = max(1, _LOGITS_AT_ONCE // (4 * len(self._head)))
        for begin in range(0, len(labels), n_at_once):
            some = slice(begin, begin + n_at_once)
            log_p = F.log_softmax(both[:, some].double() @ self._head.T, dim=-1)  # [2, n, V]
            on_labels = log_p.gather(-1, labels[some].expand(2, -1)[..., None])[..., 0]
            is_right = (log_p.argmax(-1) == labels[some]).double()
            found.append((on_labels, is_right, _shift_nats(log_p, on_labels)))
        on_label, rightness, shifts = zip(*found, strict=True)
        return torch.cat(on_label, -1), torch.cat(rightness, -1), torch.cat(shifts)

    def _weigh(self, status: TrialStatus) -> None:
        """Raises TrialStopped(status) where moves for the worse are no chance."""
        moved, self._moved = torch.cat([torch.zeros(0), *self._moved]), []
        if not len(moved):
            return
        from scipy import stats  # takes half a second: only those who compute it wait

        n_worse = int((moved > 0).sum())
        if stats.binomtest(n_worse, len(moved), alternative="greater").pvalue < _CHANCE:
            found = (
                f"{n_worse} of {len(moved)} rows whose predictions move by more than "
                f"{_LARGE_MOVE:g} nats are worse, which is no rounding"
            )
            raise self._stopped(found, status)

    def _stopped(self, found: str, status: TrialStatus) -> TrialStopped:
        if status == "noncausal":
            return TrialStopped(status, f"scoring: without the tokens after it, {found}")
        why = f"scoring: for a process that was handed the state alone, {found}"
        return TrialStopped(status, f"{why}: the state lacks part of what the model remembers")


def _move(position: int, length: int, shift: float) -> str:
    return (
        f"the prediction at position {position} of {length} moves by {shift:.2g} nats "
        f"({_TOLERANCE:g} are allowed)"
    )


def _large_moves(more_nats: Tensor, is_scored: Tensor) -> Tensor:
    """What the rows that have any lose by them in all. more_nats: where is_scored [ends, rows]."""
    large = torch.zeros(is_scored.shape, dtype=torch.float64)
    large[is_scored] = torch.where(more_nats.abs() > _LARGE_MOVE, more_nats, 0.0)
    return large.sum(0)[(large != 0).any(0)]


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


def _shift_nats(log_p: Tensor, on_labels: Tensor) -> Tensor:
    """How far two predictions [2, N, V] are apart [N]: on the labels' log p [2, N], or as RMS over
    what they say, whichever is more.

    Predictions, not hidden states, because a large channel that the head ignores would make any
    leak beside it relatively small.
    """
    gap = log_p[0] - log_p[1]
    rms = (log_p.exp().mean(0) * gap.square()).sum(-1).sqrt()
    return rms.maximum((on_labels[0] - on_labels[1]).abs())


def difference(before: float | None, after: float | None) -> float | None:
    """after - before, or None where one of them is not known."""
    return None if before is None or after is None else after - before


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Summed cross entropy in nats, of all rows and of each (float64 [N]), and how many labels had
    the largest logit."""

    nats: float
    by_row: Tensor
    n_correct: int


def sum_nats(hidden: Tensor, head: Tensor, labels: Tensor) -> Losses:
    """Of hidden states [N, T, D], a head [V, D] and labels [N, T]. Raises TrialStopped if the sum
    is not finite.
    """
    nats = 0.0
    by_row = torch.zeros(len(hidden), dtype=torch.float64)
    n_correct = 0
    tokens_at_once = min(_TOKENS_PER_CALL, _LOGITS_AT_ONCE // len(head))
    rows_at_once = max(1, tokens_at_once // hidden.shape[1])
    for rows in torch.split(torch.arange(len(hidden)), rows_at_once):
        logits = (hidden[rows] @ head.T).flatten(0, 1)
        flat = labels[rows].flatten()
        log_p = F.log_softmax(logits, dim=-1)
        nats += F.nll_loss(log_p, flat, ignore_index=IGNORED_LABEL, reduction="sum").item()
        each = F.nll_loss(log_p, flat, ignore_index=IGNORED_LABEL, reduction="none")
        by_row[rows] = each.view(len(rows), -1).double().sum(-1)
        n_correct += int((logits.argmax(-1) == flat).sum())
    if not math.isfinite(nats):
        raise TrialStopped("diverged", "scoring: the loss is not finite")
    return Losses(nats=nats, by_row=by_row, n_correct=n_correct)
