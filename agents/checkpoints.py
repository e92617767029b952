"""Which checkpoints nothing will continue from, so that their disk can be freed.

A trial that gave a score is continued by the next rung, at its climb's best rate, now or after a
resume. A training that failed is never continued: until the run ends its last good checkpoint, its
own or else the one below it, is kept for whoever looks into the failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..db import Store
from .board import Board, Candidate, Trial
from .schedule import parent_checkpoint


def spent_by(candidate: Candidate, ended: Trial) -> list[Trial]:
    """Whose checkpoints are of no more use since this trial ended: of a score those of lower rungs
    and beaten rates, of a failure that left a checkpoint of its own the one below it."""
    if ended.state == "failed":
        below = _below(candidate, ended)
        return [below] if below is not None and ended.checkpoint_hash is not None else []
    best = candidate.best(ended.key.rung, ended.key.seed)
    return [
        other
        for key, other in candidate.trials.items()
        if (key.task, key.seed) == (ended.key.task, ended.key.seed)
        and key.rung <= ended.key.rung
        and other is not best
        and other.state == "done"
    ]


def left_by_failures(board: Board) -> Iterator[Trial]:
    """Whose checkpoints are the last good ones of trainings that failed."""
    for candidate, failed in board.trials("failed"):
        yield failed
        below = _below(candidate, failed)
        if below is not None:
            yield below


def drop_checkpoints(store: Store, trials: Iterable[Trial]) -> None:
    for trial in trials:
        if trial.checkpoint_hash is not None:
            store.drop_checkpoint(trial.id)
            trial.checkpoint_hash = None


def _below(candidate: Candidate, trial: Trial) -> Trial | None:
    return parent_checkpoint(candidate, trial.key) if trial.key.task == "corpus" else None
