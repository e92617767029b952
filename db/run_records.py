"""Runs: creation, ownership by one driver at a time, and how they ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from ..errors import StoreError
from .ids import new_id
from .records import Records, touch, utc_now
from .rows import RunRow, RunState, columns_of, rows_of
from .schema import Run

LEASE_S = 30.0  # an owner that was silent for longer has lost its run


class RunRecords(Records):
    """Operations on runs."""

    def create_run(
        self,
        config: Mapping[str, Any],
        versions: Mapping[str, Any],
        seed: int,
        *,
        name: str | None = None,
    ) -> str:
        """A new run in state "running" without an owner; returns its id."""
        run_id = new_id()
        with self._database.write() as connection:
            connection.execute(
                insert(Run).values(
                    id=run_id,
                    created_at=utc_now(),
                    name=name,
                    state="running",
                    config=dict(config),
                    versions=dict(versions),
                    seed=seed,
                    owner_epoch=0,
                    revision=0,
                )
            )
        return run_id

    def claim_run(self, run_id: str, owner: str | None = None) -> int:
        """Become the run's driver and return the epoch that later writes carry.

        `owner` is "host:pid", by default this process. Raises StoreError while another owner lives:
        its last heartbeat is younger than LEASE_S and its process, if on this host, exists.
        """
        owner = owner or this_process()
        with self._database.write() as connection:
            touch(connection, run_id)
            row = _run_row(connection, run_id)
            now = self._database.now(connection)
            if row.owner != owner and _is_alive(row, now):
                raise StoreError(
                    f"Run {run_id} is being driven by {row.owner}; stop that process, or wait "
                    f"{LEASE_S:.0f} s after it stopped."
                )
            connection.execute(
                update(Run)
                .where(Run.id == run_id)
                .values(
                    owner=owner,
                    owner_epoch=row.owner_epoch + 1,
                    heartbeat_at=now,
                    state="running",
                    stop_reason=None,
                )
            )
        return row.owner_epoch + 1

    def heartbeat(self, run_id: str, epoch: int, elapsed_s: float) -> bool:
        """Prolong the ownership; False if another driver has taken the run, so stop writing."""
        with self._database.write() as connection:
            return _update_owned(
                connection,
                run_id,
                epoch,
                heartbeat_at=self._database.now(connection),
                elapsed_s=elapsed_s,
            )

    def end_run(
        self, run_id: str, epoch: int, state: RunState, reason: str, elapsed_s: float | None = None
    ) -> bool:
        """Give the run up in its last state; False if another driver has taken it."""
        elapsed = {} if elapsed_s is None else {"elapsed_s": elapsed_s}
        with self._database.write() as connection:
            touch(connection, run_id)
            return _update_owned(
                connection, run_id, epoch, state=state, stop_reason=reason, owner=None, **elapsed
            )

    def run(self, run_id_or_prefix: str) -> RunRow:
        """The run of this id, or the only one whose id starts so; else raises StoreError."""
        with self._database.read() as connection:
            prefix = run_id_or_prefix.upper()
            found = connection.scalars(
                select(Run.id).where(Run.id.startswith(prefix, autoescape=True)).order_by(Run.id)
            ).all()
            if len(found) == 1:
                return _run_row(connection, found[0])
            if found:
                raise StoreError(
                    f"Several runs start with {run_id_or_prefix!r}: {_some(found)}; give more of "
                    "the id."
                )
            known = connection.scalars(select(Run.id).order_by(Run.id.desc())).all()
        if not known:
            raise StoreError("This store holds no run yet; start one with launch-search.")
        raise StoreError(f"There is no run {run_id_or_prefix!r}; this store holds {_some(known)}.")

    def runs(self) -> tuple[RunRow, ...]:
        """All runs, newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(*columns_of(Run, RunRow)).order_by(Run.id.desc()))
            return rows_of(RunRow, rows)

    def latest_run(self) -> RunRow | None:
        """The newest run, or None in an empty store."""
        with self._database.read() as connection:
            newest = connection.scalar(select(func.max(Run.id)))
            return None if newest is None else _run_row(connection, newest)


def this_process() -> str:
    """How this process signs its leases: "host:pid"."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _run_row(connection: Connection, run_id: str) -> RunRow:
    rows = connection.execute(select(*columns_of(Run, RunRow)).where(Run.id == run_id))
    return rows_of(RunRow, rows)[0]


def _update_owned(connection: Connection, run_id: str, epoch: int, **values: Any) -> bool:
    is_owner = (Run.id == run_id) & (Run.owner_epoch == epoch)
    return connection.execute(update(Run).where(is_owner).values(**values)).rowcount == 1


def _is_alive(row: RunRow, now: datetime) -> bool:
    if row.owner is None or row.heartbeat_at is None:
        return False
    if abs((now - row.heartbeat_at).total_seconds()) > LEASE_S:  # abs: the clock was set back
        return False
    host, _, pid = row.owner.rpartition(":")
    return host != socket.gethostname() or not pid.isdigit() or _exists(int(pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to another user
        return True
    return True


def _some(ids: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(ids) - limit} more" if len(ids) > limit else ""
    return ", ".join(ids[:limit]) + more
