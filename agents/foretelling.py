"""How well each rung foretold the order on the next, measured without selection bias.

Whoever was promoted by its score had to be; a baseline always climbs. Of those pruned, the ones
that climbed by lot stand for all: each weighs as many as there were to one drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..config import LadderConfig
from ..db import LeaderboardRow, Score, StatisticRow
from ..evaluator.correlation import (
    Coefficient,
    Correlation,
    correlate,
    kendall,
    spearman,
    top_count,
    top_recall,
)
from ..evaluator.correlation_intervals import architectures_needed
from .board import Board
from .promotion import finishers, promoted

COEFFICIENTS: dict[str, Coefficient] = {
    "spearman": spearman,
    "kendall": kendall,
    "top_recall": top_recall,
}
_LEAST_SPEARMAN = 0.3

Verdict = Literal["ranks", "does not rank", "too few to say"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Climb:
    """Who reached the next rung, with what each weighs; `n_pruned` finishers were not promoted by
    their score, of which `drawn` were measured there by lot."""

    rows: list[LeaderboardRow]
    weights: list[float]
    n_pruned: int
    drawn: list[str]

    @property
    def n_drawn(self) -> int:
        return len(self.drawn)


def rank_correlations(
    rows: Sequence[LeaderboardRow], scores: Iterable[Score], board: Board, ladder: LadderConfig
) -> Iterator[StatisticRow]:
    """For each rung but the last: Spearman, Kendall and the recall of the best fifth, over all that
    compete and over the candidates alone."""
    by_lot = {(score.architecture_id, score.rung) for score in scores if score.purpose == "random"}
    for rung in range(len(ladder.rung_tokens) - 1):
        climb = _climb(rows, rung, by_lot, board, ladder)
        for population in ("all", "candidates"):
            chosen = [
                (row, weight)
                for row, weight in zip(climb.rows, climb.weights, strict=True)
                if population == "all" or not row.is_baseline
            ]
            yield from _coefficients(chosen, rung, climb, population, ladder)


def verdict_on(found: Correlation) -> Verdict | None:
    """By where Spearman's interval lies: above 0.3, below it, or across; None where not measured.

    Not shown to rank is not shown not to.
    """
    if found.low is None or found.high is None:
        return None
    if found.low > _LEAST_SPEARMAN:
        return "ranks"
    return "does not rank" if found.high < _LEAST_SPEARMAN else "too few to say"


def needed_on(found: Correlation) -> int | None:
    """How many architectures that weigh alike would decide, were Spearman what it now seems; None
    where it is decided, or no number within reach would do."""
    if verdict_on(found) != "too few to say" or found.value is None:
        return None
    needed = architectures_needed(found.value, _LEAST_SPEARMAN)
    if needed is None or needed > found.n_effective:
        return needed
    # Resamples spread more than theory says; any interval narrows with the root of the number.
    distance = found.value - _LEAST_SPEARMAN
    end = found.low if distance > 0 else found.high
    return math.ceil(found.n_effective * ((found.value - (end or 0.0)) / distance) ** 2)


def _climb(
    rows: Sequence[LeaderboardRow],
    rung: int,
    by_lot: set[tuple[str, int]],
    board: Board,
    ladder: LadderConfig,
) -> _Climb:
    climbed = [row for row in rows if rung + 1 in row.val_bpb_by_rung and not row.is_reference]
    finished = {candidate.id for candidate, _ in finishers(board, rung)}
    drawn = {row.id for row in climbed if (row.id, rung + 1) in by_lot}
    by_score = promoted(board, rung, ladder)
    # Whoever climbed by its score, if only at the time, or would have without the lot.
    certain = by_score | {row.id for row in climbed if row.id not in drawn}
    pruned = finished - certain
    chosen = sorted(drawn & pruned)
    weight = len(pruned) / len(chosen) if chosen else 1.0
    return _Climb(
        rows=climbed,
        weights=[weight if row.id in pruned else 1.0 for row in climbed],
        n_pruned=len(pruned),
        drawn=chosen,
    )


def _coefficients(
    chosen: list[tuple[LeaderboardRow, float]],
    rung: int,
    climb: _Climb,
    population: str,
    ladder: LadderConfig,
) -> Iterator[StatisticRow]:
    first = [row.val_bpb_by_rung.get(rung) for row, _ in chosen]
    second = [row.val_bpb_by_rung[rung + 1] for row, _ in chosen]
    weights = [weight for _, weight in chosen]
    for name, coefficient in COEFFICIENTS.items():
        found = correlate(coefficient, first, second, weights)
        detail: dict[str, Any] = {
            "coefficient": name,
            "population": population,
            "next_rung": rung + 1,
            "n_pruned": climb.n_pruned,
            "n_drawn": climb.n_drawn,
            "n_stood_for": round(sum(weights)),
            "n_effective": found.n_effective,
        }
        if name == "spearman":
            detail |= {"drawn_ids": climb.drawn, **_judged(found, ladder)}
        if name == "top_recall":
            detail["top"] = top_count(sum(weights))
        yield StatisticRow(
            rung=rung,
            metric="val_bpb",
            value=found.value,
            low=found.low,
            high=found.high,
            n=found.n,
            detail=detail,
        )


def _judged(found: Correlation, ladder: LadderConfig) -> dict[str, Any]:
    """The verdict, and what can be changed where it is not that the rung ranks."""
    return {"verdict": verdict_on(found), "n_needed": needed_on(found), "pruner": ladder.pruner}
