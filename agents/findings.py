"""What a search found out, as rows of the store: how well each rung ranks, what luck the best had,
and which candidates are truly better than which baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean

from ..config import RunConfig
from ..db import LeaderboardRow, Score, StatisticRow, Store
from ..evaluator.comparison import pool_seed_noise, t_quantile
from .board import Board
from .comparing import comparisons
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
    windows = store.queries.window_nats(run_id)
    compared = list(comparisons(on_last, scores, windows, rows))
    store.replace_statistics(run_id, COMPARISON, compared)


def _winners_curse(rows: list[LeaderboardRow], scores: dict[str, Score]) -> Iterator[StatisticRow]:
    """For each candidate measured again its first score minus the mean of its fresh ones: below
    zero, the score that it was chosen by had flattered it. Last their mean, of no architecture,
    with what the seed noise leaves of it."""
    noise = pool_seed_noise(row.val_bpb_values for row in rows)
    differences = []
    variances = []  # of each difference, in units of the noise's
    for row in rows:
        purposes = [scores[id_].purpose for id_ in row.trial_ids]
        of_seeds = list(zip(row.val_bpb_values, purposes, strict=True))
        fresh = [value for value, purpose in of_seeds if purpose == "fresh"]
        first = [value for value, purpose in of_seeds if purpose != "fresh"]
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
