"""The learning rates that an architecture is tried at on the first rung.

The grid is the same for all, candidates and baselines alike; where the best rate stands at its edge
the optimum may lie beyond, and the grid grows there by its own spacing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config import RunConfig
from ..db import StatisticRow
from .board import Board, Candidate, Trial, TrialKey

EDGE_RATE = "edge_rate"  # a statistic

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
    return _ended_trials(candidate, config, rates_of(candidate, config)) is not None


def edge_rate(candidate: Candidate, config: RunConfig) -> float | None:
    """The best rate, where it is at the edge of a grid that grows no more: a better one may lie
    beyond. None elsewhere, and before it is known."""
    rates = rates_of(candidate, config)
    best = _best_rate(candidate, config, rates)
    return best if len(rates) > 1 and best in (rates[0], rates[-1]) else None


def edge_rows(board: Board, config: RunConfig) -> Iterator[StatisticRow]:
    """One for each architecture whose best rate is at the edge: the rate."""
    for candidate in board:
        rate = edge_rate(candidate, config)
        if rate is not None and candidate.is_believed:
            yield StatisticRow(
                architecture_id=candidate.id,
                rung=0,
                metric="learning_rate",
                value=rate,
                detail={"name": candidate.name},
            )


def _best_rate(candidate: Candidate, config: RunConfig, rates: Sequence[float]) -> float | None:
    """Of these; None while one of them has not ended, or where none gave a score."""
    trials = _ended_trials(candidate, config, rates) or []
    scores = [(t.val_bpb, t.key.learning_rate) for t in trials if t.val_bpb is not None]
    return min(scores)[1] if scores else None


def _ended_trials(
    candidate: Candidate, config: RunConfig, rates: Sequence[float]
) -> list[Trial] | None:
    """One for each of these rates; None while one of them has not ended."""
    keys = (TrialKey(task="corpus", rung=0, seed=config.seed, learning_rate=r) for r in rates)
    ended = [t for key in keys if (t := candidate.trials.get(key)) and t.state in _ENDED]
    return ended if len(ended) == len(rates) else None


def _beyond(edge: float, inner: float) -> float:
    """As far from the edge as the next rate inside is, in proportion."""
    return float(f"{edge * edge / inner:.3g}")
