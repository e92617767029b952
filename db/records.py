"""What the groups of store operations share."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from ..errors import StoreError
from .blobs import Blobs
from .database import Database
from .schema import Architecture, Run


class Records:
    """Holds the database and the blobs for one group of operations."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self.blobs = blobs


def utc_now() -> datetime:
    return datetime.now(UTC)


def touch(connection: Connection, run_id: str) -> None:
    """Count a change of the run. First statement of every write of its rows: it also makes the
    run's writers queue up, so what follows sees no half of another's work and cannot deadlock."""
    changed = connection.execute(
        update(Run).where(Run.id == run_id).values(revision=Run.revision + 1)
    )
    if changed.rowcount == 0:
        raise StoreError(f"There is no run {run_id!r} in this store.")


def run_of_architecture(connection: Connection, architecture_id: str) -> str:
    """The run it belongs to; raises StoreError for an unknown architecture."""
    query = select(Architecture.run_id).where(Architecture.id == architecture_id)
    run_id = connection.scalar(query)
    if run_id is None:
        raise StoreError(f"There is no architecture {architecture_id!r} in this store.")
    return run_id
