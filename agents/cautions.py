"""What a reader of a run's numbers has to know beside them, in sentences; from the store alone."""

from __future__ import annotations

from ..db import Store
from .shard import shard_lines


def cautions(store: Store, run_id: str) -> tuple[str, ...]:
    """None of them where nothing is to be said."""
    return tuple(shard_lines(store, store.run(run_id)))
