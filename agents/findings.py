"""What a search found out, as rows of the store: how well each rung ranks, what luck the best had,
and which candidates are truly better than which baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from ..config import RunConfig
from ..db import LeaderboardRow, Score, StatisticRow, Store
from ..evaluator.comparison import Comparison, SeedNoise, compare, pool_seed_noise, t_quantile
from .board import Board
from .foretelling import rank_correlations

RANK_CORRELATION, WINNERS_CURSE, COMPARISON = "rank_correlation", "winners_curse", "comparison"


def refresh_findings(store: Store, run_id: str, config: RunConfig, board: Board) -> None:
    """Computes and stores all of them: once, when a search ends."""
    rows = store.queries.leaderboard(run_id)
    scores = {score.trial_id: score for score in store.queries.scores(run_id)}
    found = list(rank_correlations(rows, scores.values(), board, config.ladder))
    store.replace_statistics(run_id, RANK_CORRELATION, found)
    last = len(config.ladder.rung_tokens) - 1
    on_last = [row for row in rows if row.rung == last]
    store.replace_statistics(run_id, WINNERS_CURSE, list(_winners_curse(on_last, scores)))
    compared = list(_comparisons(on_last, scores, rows))
    store.replace_statistics(run_id, COMPARISON, compared)


def _winners_curse(rows: list[LeaderboardRow], scores: dict[str, Score]) -> Iterator[StatisticRow]:
    """For each candidate measured again its first score minus the mean of its fresh ones: below
    zero, the score that it was chosen by had flattered it. Last their mean, of no architecture,
    with what the seed noise leaves of it."""
    noise = pool_seed_noise(row.val_bpb_values for row in rows)
    differences = []
    variances = []  # of each difference, in units of the noise's
    for row in rows:
        fresh, first = _by_freshness(row, scores)
        if row.is_baseline or not fresh or not first:
            continue
        differences.append(first[0] - fmean(fresh))
        variances.append(1 + 1 / len(fresh))
        yield StatisticRow(
            architecture_id=row.id,
            rung=row.rung,
            metric="val_bpb",
            value=differences[-1],
            n=len(fresh),
            detail={"name": row.name, "first": first[0], "fresh_mean": fmean(fresh)},
        )
    if differences and noise is not None:
        mean, n = fmean(differences), len(differences)
        half = t_quantile(noise.freedom) * noise.sd * math.sqrt(math.fsum(variances)) / n
        yield StatisticRow(metric="val_bpb", value=mean, low=mean - half, high=mean + half, n=n)


def _comparisons(
    rows: list[LeaderboardRow], scores: dict[str, Score], everything: tuple[LeaderboardRow, ...]
) -> Iterator[StatisticRow]:
    """Each candidate on the last rung against each baseline there.

    Where there are fresh seeds they alone speak for the candidate, corrected for all pairs of fresh
    candidates with baselines. Else its one score does, by which it may have been chosen: corrected
    for all candidates that were tried, those pruned on a lower rung included.
    """
    noise = pool_seed_noise(row.val_bpb_values for row in rows)
    baselines = [row for row in rows if row.is_baseline and not row.is_reference]
    candidates = [row for row in rows if not row.is_baseline]
    if noise is None or not baselines:
        return
    n_tried = sum(not row.is_baseline and row.val_bpb is not None for row in everything)
    fresh = {row.id: _by_freshness(row, scores)[0] for row in candidates}
    n_fresh = sum(bool(values) for values in fresh.values())
    for row in candidates:
        values = fresh[row.id] or list(row.val_bpb_values)
        n_others = n_fresh if fresh[row.id] else n_tried
        for baseline in baselines:
            found = compare(
                values,
                baseline.val_bpb_values,
                noise,
                n_comparisons=n_others * len(baselines),
            )
            yield _comparison_row(row, baseline, found, noise, bool(fresh[row.id]), n_others)


def _comparison_row(
    row: LeaderboardRow,
    baseline: LeaderboardRow,
    found: Comparison,
    noise: SeedNoise,
    is_fresh: bool,
    n_candidates: int,
) -> StatisticRow:
    return StatisticRow(
        architecture_id=row.id,
        rung=row.rung,
        metric="val_bpb",
        value=found.delta,
        low=found.low,
        high=found.high,
        n=found.n_first,
        detail={
            "name": row.name,
            "baseline": baseline.name,
            "baseline_id": baseline.id,
            "baseline_bpb": baseline.val_bpb,
            "n_baseline": found.n_second,
            "is_fresh": is_fresh,
            "n_candidates": n_candidates,
            "n_comparisons": found.n_comparisons,
            "sd": noise.sd,
            "freedom": noise.freedom,
            "is_better": found.is_better,
            "is_worse": found.is_worse,
            "seeds_needed": found.seeds_needed,
        },
    )


def _by_freshness(row: LeaderboardRow, scores: dict[str, Score]) -> tuple[list[float], list[float]]:
    """The quoted scores of fresh seeds, and the others, by seed."""
    fresh: list[float] = []
    first: list[float] = []
    for score in (scores[id_] for id_ in row.trial_ids):
        assert score.val_bpb is not None
        (fresh if score.purpose == "fresh" else first).append(score.val_bpb)
    return fresh, first
