"""The learning rates that an architecture is tried at on the first rung.

The grid is the same for all, candidates and baselines alike; where the best rate stands at its edge
the optimum may lie beyond, and the grid grows there by its own spacing.
"""

from __future__ import annotations

from ..config import RunConfig
from .board import Candidate, Trial, TrialKey

_ENDED = {"done", "failed"}


def rates_of(candidate: Candidate, config: RunConfig) -> tuple[float, ...]:
    """Every rate that is wanted now, ascending."""
    rates = sorted(config.training.learning_rates)
    if len(rates) == 1:
        return tuple(rates)
    for _ in range(config.training.widen_rates):
        best = _best_rate(candidate, config, rates)
        if best == rates[0]:
            rates.insert(0, _beyond(rates[0], rates[1]))
        elif best == rates[-1]:
            rates.append(_beyond(rates[-1], rates[-2]))
        else:
            break
    return tuple(rates)


def is_grid_complete(candidate: Candidate, config: RunConfig) -> bool:
    """Whether every rate has ended, so that the best of them is known."""
    trials = [_trial(candidate, config, rate) for rate in rates_of(candidate, config)]
    return all(trial is not None and trial.state in _ENDED for trial in trials)


def _best_rate(candidate: Candidate, config: RunConfig, rates: list[float]) -> float | None:
    """Of these; None while one of them has not ended, or where none gave a score."""
    trials = [_trial(candidate, config, rate) for rate in rates]
    if not all(trial is not None and trial.state in _ENDED for trial in trials):
        return None
    scores = [(t.val_bpb, t.key.learning_rate) for t in trials if t and t.val_bpb is not None]
    return min(scores)[1] if scores else None


def _trial(candidate: Candidate, config: RunConfig, rate: float) -> Trial | None:
    key = TrialKey(task="corpus", rung=0, seed=config.seed, learning_rate=rate)
    return candidate.trials.get(key)


def _beyond(edge: float, inner: float) -> float:
    """As far from the edge as the next rate inside is, in proportion."""
    return float(f"{edge * edge / inner:.3g}")
