"""Optuna's WilcoxonPruner on paired windows: who is worse than the best that came before it.

Each rung is a study of its own, told everything anew in the order in which it came in, as in
`pruners.py`. All held-out windows are known at once, so each candidate is tested once, against the
best that came before it on the same rung, and the threshold is the rate at which equals are pruned.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, TrialState

from ...config import LadderConfig
from ..board import Board
from ..promotion import finishers
from .pruners import ended_at
from .quiet import quiet_optuna

_Entry = tuple[str, tuple[float, ...]]  # a candidate's losses, window by window


def kept_by_windows(board: Board, rung: int, ladder: LadderConfig) -> set[str]:
    """Ids of the candidates that the pruner did not prune on `rung`; without windows none is."""
    found = []
    unknown = set()
    for candidate, _ in finishers(board, rung):
        best = candidate.best(rung, board.seed)
        if best is None or best.window_nats is None:
            unknown.add(candidate.id)
        else:
            ended = ended_at(candidate, rung, board.seed)
            found.append((ended, candidate.id, best.window_nats))
    entries = tuple((name, nats) for _, name, nats in sorted(found))
    return unknown | _decide(entries, ladder.wilcoxon_p)


@lru_cache(maxsize=8)
def _decide(entries: tuple[_Entry, ...], p_threshold: float) -> frozenset[str]:
    kept = set()
    with quiet_optuna():
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=p_threshold)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
        for name, nats in entries:
            trial = _trial(nats)
            if not pruner.prune(study, trial):
                kept.add(name)
            study.add_trial(trial)
    return frozenset(kept)


def _trial(nats: tuple[float, ...]) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE, value=fmean(nats), intermediate_values=dict(enumerate(nats))
    )
