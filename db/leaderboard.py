"""The leaderboard: each architecture of a run with the number that stands for it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, and_, literal, select
from sqlalchemy.orm import aliased

from .quotes import NOT_QUOTED, best_recall, mean_of, quotes_by_rung
from .reader import Reader
from .rows import rows_of
from .schema import Architecture, Metric, Parent, Statistic, Trial
from .views import RECALL, SCORE_METRICS, LeaderboardRow, Score

_Interval = tuple[float | None, float | None, float | None]  # value, low, high
_STATISTICS = ("delta", "score", "fitness", "rank", "pareto_rank", "tie")
_TRIAL = (
    *("architecture_id", "task", "rung", "tokens", "seed", "learning_rate", "purpose"),
    "finished_at",
)
_SHOWN = (
    *("id", "number", "name", "motivation", "origin", "state", "is_reference", "family"),
    *(
        "pattern",
        "n_params",
        "flops_per_token",
        "state_bytes",
        "reason",
        "rejected_by",
        "created_at",
    ),
)


class LeaderboardQueries(Reader):
    """Scores and ranked rows."""

    def scores(self, run_id: str) -> tuple[Score, ...]:
        """All finished trials of a run with their final measurements, oldest first."""
        with self._database.read() as connection:
            return select_scores(connection, run_id)

    def window_nats(self, run_id: str) -> dict[str, tuple[float, ...]]:
        """By trial, the summed loss of each held-out window: in one order for all of a run, to
        float32. Trials of which they were not stored are left out."""
        is_known = (Trial.run_id == run_id) & Trial.window_nats.is_not(None)
        with self._database.read() as connection:
            rows = connection.execute(select(Trial.id, Trial.window_nats).where(is_known))
            return {id_: nats for id_, nats in rows.all() if nats is not None}

    def leaderboard(self, run_id: str) -> tuple[LeaderboardRow, ...]:
        """All architectures of a run in the order of their ranks: scored ones first, higher rungs
        above lower, lower bits per byte above higher; then the others by number."""
        with self._database.read() as connection:
            architectures = connection.execute(
                select(*(getattr(Architecture, name) for name in _SHOWN))
                .where(Architecture.run_id == run_id)
                .order_by(Architecture.number)
            ).all()
            scores = scores_by_architecture(select_scores(connection, run_id))
            parents = _parents(connection, run_id)
            statistics = _statistics(connection, run_id)
        rows = [
            _row(
                dict(zip(_SHOWN, row, strict=True)),
                scores.get(row.id, []),
                parents.get(row.id, ()),
                statistics,
            )
            for row in architectures
        ]
        return tuple(sorted(rows, key=_position))


def select_scores(connection: Connection, run_id: str) -> tuple[Score, ...]:
    named = [*SCORE_METRICS, literal(RECALL) + Trial.task]
    metrics = [(name, aliased(Metric)) for name in named]
    query = select(  # in order of Score's fields
        Trial.id,
        *(getattr(Trial, name) for name in _TRIAL),
        *(metric.value for _, metric in metrics),
    )
    for name, metric in metrics:
        is_final = and_(metric.trial_id == Trial.id, metric.name == name, metric.step.is_(None))
        query = query.outerjoin(metric, is_final)
    chosen = query.where(Trial.run_id == run_id, Trial.state == "done").order_by(Trial.id)
    return rows_of(Score, connection.execute(chosen).all())


def scores_by_architecture(scores: tuple[Score, ...]) -> dict[str, list[Score]]:
    groups: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.architecture_id].append(score)
    return groups


def _parents(connection: Connection, run_id: str) -> dict[str, tuple[str, ...]]:
    rows = connection.execute(
        select(Parent.child_id, Parent.parent_id)
        .join(Architecture, Architecture.id == Parent.child_id)
        .where(Architecture.run_id == run_id)
        .order_by(Parent.parent_id)
    )
    found: dict[str, tuple[str, ...]] = {}
    for child_id, parent_id in rows.all():
        found[child_id] = (*found.get(child_id, ()), parent_id)
    return found


def _statistics(
    connection: Connection, run_id: str
) -> dict[tuple[str, str | None, int | None], _Interval]:
    """By name, architecture and rung."""
    rows = connection.execute(
        select(
            *(Statistic.name, Statistic.architecture_id, Statistic.rung),
            *(Statistic.value, Statistic.low, Statistic.high),
        ).where(
            Statistic.run_id == run_id,
            Statistic.name.in_(_STATISTICS),
            Statistic.architecture_id.is_not(None),
        )
    )
    return {
        (name, id_, rung): (value, low, high) for name, id_, rung, value, low, high in rows.all()
    }


def _row(
    shown: dict[str, Any],
    scores: list[Score],
    parents: tuple[str, ...],
    statistics: dict[tuple[str, str | None, int | None], _Interval],
) -> LeaderboardRow:
    facts = {**shown, "is_baseline": shown["origin"] == "baseline", "parents": parents}
    quotes = quotes_by_rung(scores if shown["state"] not in NOT_QUOTED else ())
    if not quotes:
        return LeaderboardRow(**facts)
    quote = quotes[max(quotes)]

    def statistic(name: str) -> _Interval:
        return statistics.get((name, shown["id"], quote.rung), (None, None, None))

    delta, delta_low, delta_high = statistic("delta")
    _, val_bpb_low, val_bpb_high = statistic("score")
    return LeaderboardRow(
        **facts,
        rung=quote.rung,
        tokens=quote.tokens,
        val_bpb=quote.val_bpb,
        val_bpb_values=quote.values,
        val_bpb_low=val_bpb_low,
        val_bpb_high=val_bpb_high,
        n_seeds=len(quote.values),
        learning_rate=quote.learning_rate,
        val_bpb_by_rung={rung: quotes[rung].val_bpb for rung in quotes},
        delta=delta,
        delta_low=delta_low,
        delta_high=delta_high,
        rank=_whole(statistic("rank")[0]),
        fitness=statistic("fitness")[0],
        pareto_rank=_whole(statistic("pareto_rank")[0]),
        tie=_whole(statistic("tie")[0]),
        test_bpb=mean_of(score.test_bpb for score in quote.scores),
        tokens_per_s=mean_of(score.tokens_per_s for score in quote.scores),
        step_time_s=mean_of(score.step_time_s for score in quote.scores),
        decode_time_s=mean_of(score.decode_time_s for score in quote.scores),
        peak_memory_bytes=mean_of(score.peak_memory_bytes for score in quote.scores),
        recall=best_recall(scores),
        trial_id=quote.scores[0].trial_id,
        trial_ids=tuple(score.trial_id for score in quote.scores),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _position(row: LeaderboardRow) -> tuple[bool, int, float, int]:
    is_unscored = row.rung is None or row.val_bpb is None
    return (is_unscored, -(row.rung or 0), row.val_bpb or 0.0, row.number)
