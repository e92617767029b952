"""Which number stands for an architecture: the choice of rung, learning rate and seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from .views import Score

# What no number is quoted of: it was found out, or its score is not to be believed unseen.
NOT_QUOTED = ("rejected", "quarantined")

Recall = tuple[int, float, float]  # rung, learning rate, share of right answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """The scores of one architecture at one rung and learning rate, in order of seed."""

    rung: int
    tokens: int
    learning_rate: float
    val_bpb: float  # mean over seeds
    values: tuple[float, ...]
    scores: tuple[Score, ...]


def quotes_by_rung(scores: Iterable[Score]) -> dict[int, Quote]:
    """One architecture's quote at each rung with a score, the highest rung last.

    At each rung the learning rate with the lowest mean over its seeds is quoted; of equal means the
    smaller rate.
    """
    groups: dict[int, dict[float, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.task == "corpus" and score.val_bpb is not None:
            groups[score.rung][score.learning_rate].append(score)
    return {
        rung: min(
            (_quote(group) for group in groups[rung].values()),
            key=lambda quote: (quote.val_bpb, quote.learning_rate),
        )
        for rung in sorted(groups)
    }


def best_recall(scores: Iterable[Score]) -> dict[str, float]:
    """By task, the highest mean over seeds of any learning rate."""
    measured: dict[str, list[Recall]] = defaultdict(list)
    for score in scores:
        if score.recall is not None:
            measured[score.task].append((score.rung, score.learning_rate, score.recall))
    return {task: fmean(best_shares(recalls)) for task, recalls in sorted(measured.items())}


def best_shares(recalls: Iterable[Recall]) -> tuple[float, ...]:
    """Of one task, the shares of right answers of all seeds at the learning rate where their mean
    is highest; none of none."""
    groups: dict[tuple[int, float], list[float]] = defaultdict(list)
    for rung, learning_rate, share in recalls:
        groups[rung, learning_rate].append(share)
    return tuple(max(groups.values(), key=fmean, default=()))


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _quote(group: list[Score]) -> Quote:
    ordered = sorted(group, key=lambda score: score.seed)
    values = tuple(score.val_bpb for score in ordered if score.val_bpb is not None)
    first = ordered[0]
    return Quote(
        rung=first.rung,
        tokens=first.tokens,
        learning_rate=first.learning_rate,
        val_bpb=fmean(values),
        values=values,
        scores=tuple(ordered),
    )
