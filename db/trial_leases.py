"""Who works on a trial: taken by one owner at a time, given back when its driver or worker died.

Each start raises the trial's epoch. A write that carries an older one changes nothing, so an owner
that was paused past its lease cannot disturb the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from ..errors import StoreError
from .records import Records, touch, utc_now
from .rows import TrialRow, columns_of, rows_of
from .run_records import this_process
from .schema import Trial
from .verdicts import update_architecture_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphans:
    """What became of trials whose driver died: trial ids."""

    requeued: tuple[str, ...]
    poisoned: tuple[str, ...]


class TrialLeases(Records):
    """Operations on the ownership of trials."""

    def start_trial(
        self, trial_id: str, owner: str | None = None, *, gpus: float | None = None
    ) -> int | None:
        """Take a queued trial and return the epoch to finish it with; None if another took it.

        `gpus` is the share of a GPU that it will hold, for the budget. The heartbeat is set here.
        """
        with self._database.write() as connection:
            touch(connection, run_of_trial(connection, trial_id))
            row = trial_row(connection, trial_id)
            if row.state != "queued":
                return None
            now = self._database.now(connection)
            connection.execute(
                update(Trial)
                .where(Trial.id == trial_id)
                .values(
                    state="running",
                    owner=owner or this_process(),
                    epoch=row.epoch + 1,
                    attempts=row.attempts + 1,
                    heartbeat_at=now,
                    started_at=now,
                    gpus=gpus,
                )
            )
            return row.epoch + 1

    def heartbeat_trial(self, trial_id: str, epoch: int) -> bool:
        """Prolong a running trial's lease; False if it was taken away."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            return update_running(connection, trial_id, epoch, heartbeat_at=now)

    def requeue_trial(
        self, trial_id: str, epoch: int, reason: str, *, max_attempts: int = 3
    ) -> bool:
        """Give back a running trial that the infrastructure failed, not the candidate.

        True if it is queued again; False if its attempts are used up, so it failed, or the epoch
        is stale.
        """
        with self._database.write() as connection:
            touch(connection, run_of_trial(connection, trial_id))
            row = trial_row(connection, trial_id)
            if row.state != "running" or row.epoch != epoch:
                return False
            return _give_back(connection, row, reason, max_attempts)

    def requeue_orphans(self, run_id: str, *, max_attempts: int = 3) -> Orphans:
        """Give back all trials that a dead driver left running; call after `claim_run`."""
        requeued: list[str] = []
        poisoned: list[str] = []
        with self._database.write() as connection:
            touch(connection, run_id)
            is_orphan = (Trial.run_id == run_id) & (Trial.state == "running")
            for row in select_trials(connection, is_orphan):
                is_queued = _give_back(connection, row, "its driver died", max_attempts)
                (requeued if is_queued else poisoned).append(row.id)
        return Orphans(requeued=tuple(requeued), poisoned=tuple(poisoned))


def select_trials(connection: Connection, chosen: ColumnElement[bool]) -> tuple[TrialRow, ...]:
    query = select(*columns_of(Trial, TrialRow)).where(chosen).order_by(Trial.id)
    return rows_of(TrialRow, connection.execute(query).all())


def trial_row(connection: Connection, trial_id: str) -> TrialRow:
    """Raises StoreError for an unknown trial."""
    found = select_trials(connection, Trial.id == trial_id)
    if not found:
        raise StoreError(f"There is no trial {trial_id!r} in this store.")
    return found[0]


def run_of_trial(connection: Connection, trial_id: str) -> str:
    return trial_row(connection, trial_id).run_id


def update_running(connection: Connection, trial_id: str, epoch: int, **values: Any) -> bool:
    """Change a running trial under its epoch; False if it ended or another owner has it."""
    is_ours = (Trial.id == trial_id) & (Trial.epoch == epoch) & (Trial.state == "running")
    return connection.execute(update(Trial).where(is_ours).values(**values)).rowcount == 1


def _give_back(connection: Connection, row: TrialRow, reason: str, max_attempts: int) -> bool:
    if row.attempts < max_attempts:
        back = {"state": "queued", "owner": None, "reason": reason}
        return update_running(connection, row.id, row.epoch, **back)
    update_running(
        connection,
        row.id,
        row.epoch,
        state="failed",
        status="infra",
        reason=f"poisoned: {row.attempts} attempts gave no result, the last because {reason}",
        finished_at=utc_now(),
    )
    update_architecture_state(connection, row.architecture_id)
    return False
