"""What a reader of a run's numbers has to know beside them, in sentences; from the store alone."""

from __future__ import annotations

from collections.abc import Iterator

from ..db import Store
from .rates import EDGE_RATE
from .shard import shard_lines


def cautions(store: Store, run_id: str) -> tuple[str, ...]:
    """None of them where nothing is to be said."""
    return (
        *_missing_baselines(store, run_id),
        *_edge_lines(store, run_id),
        *shard_lines(store, store.run(run_id)),
    )


def _missing_baselines(store: Store, run_id: str) -> Iterator[str]:
    """Their rows have no score, and without a word nobody would miss them."""
    for row in store.queries.leaderboard(run_id):
        if row.is_baseline and row.state in ("rejected", "failed", "quarantined"):
            yield f"The baseline {row.name} has no score here: {row.reason or row.state}"


def _edge_lines(store: Store, run_id: str) -> Iterator[str]:
    rows = store.queries.statistics(run_id, EDGE_RATE)
    if rows:
        named = ", ".join(f"{(row.detail or {})['name']} ({row.value:g})" for row in rows)
        yield (
            f"Best learning rate at the edge of the grid, a better one may lie beyond: {named}. "
            "Widen training.learning_rates, or raise training.widen_rates."
        )
