"""Optuna's pruners as judges of promotion, asked about the board.

The study lives in memory and is told every score anew, in the order in which they came in: the
database stays the only truth, and a resumed run gets the same answers. Rung r of the ladder is
reported as step reduction_factor^r, whatever its tokens, so that rungs coincide. Optuna decides
once, when a score comes in; unlike `asha` it never takes up a candidate that it had passed over.
`wilcoxon` has a file of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import optuna

from ...config import LadderConfig
from ..board import Board, Candidate
from ..promotion import finishers
from .quiet import quiet_optuna

_STUDY = "ladder"  # Hyperband draws brackets from the name and a trial's number
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

_Event = tuple[str, int, float]  # a candidate's score on a rung


def kept_by_pruner(board: Board, rung: int, ladder: LadderConfig) -> set[str]:
    """Ids of the candidates that the pruner did not prune on `rung`."""
    return {name for name, at in _decide(_events(board, ladder), ladder) if at == rung}


def _events(board: Board, ladder: LadderConfig) -> tuple[_Event, ...]:
    """First seeds' scores on all rungs from which one can climb, in the order they came in."""
    found = [
        (ended_at(candidate, rung, board.seed), rung, candidate.id, value)
        for rung in range(len(ladder.rung_tokens) - 1)
        for candidate, value in finishers(board, rung)
    ]
    return tuple((name, rung, value) for _, rung, name, value in sorted(found))


def ended_at(candidate: Candidate, rung: int, seed: int) -> datetime:
    """When the last of the rates ended, since only then the best of them was known."""
    times = [
        trial.finished_at
        for key, trial in candidate.trials.items()
        if (key.task, key.rung, key.seed) == ("corpus", rung, seed) and trial.finished_at
    ]
    return max(times, default=_LONG_AGO)


@lru_cache(maxsize=4)
def _decide(events: tuple[_Event, ...], ladder: LadderConfig) -> frozenset[tuple[str, int]]:
    """The candidates and rungs at which the pruner let them go on."""
    kept = set()
    with quiet_optuna():
        study = optuna.create_study(
            study_name=_STUDY, sampler=optuna.samplers.RandomSampler(seed=0), pruner=_pruner(ladder)
        )
        trials: dict[str, optuna.Trial] = {}
        for name, rung, value in events:
            trial = trials.get(name) or trials.setdefault(name, study.ask())
            trial.report(value, step=ladder.reduction_factor**rung)
            if not trial.should_prune():
                kept.add((name, rung))
    return frozenset(kept)


def _pruner(ladder: LadderConfig) -> optuna.pruners.BasePruner:
    factor = ladder.reduction_factor
    if ladder.pruner == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    # One more than the last step, since floor(log(243, 3)) is 4.
    most = factor ** (len(ladder.rung_tokens) - 1) + 1
    return optuna.pruners.HyperbandPruner(
        min_resource=1, max_resource=most, reduction_factor=factor
    )
