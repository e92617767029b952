"""Trials and their measurements: queued once for their key, finished in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from .gate_rows import replace_trained_gates
from .ids import new_id
from .inputs import TrialOutcome
from .records import run_of_architecture, touch, utc_now
from .rows import TrialPurpose, TrialRow
from .schema import Metric, Trial
from .trial_leases import TrialLeases, run_of_trial, select_trials, trial_row, update_running
from .verdicts import update_architecture_state

CURVE = "train_loss_nats"  # the metric that holds a training curve


class TrialRecords(TrialLeases):
    """Operations on trials."""

    def enqueue_trial(
        self,
        run_id: str,
        architecture_id: str,
        *,
        task: str,
        rung: int,
        tokens: int,
        seed: int,
        learning_rate: float,
        purpose: TrialPurpose | None = None,
    ) -> TrialRow:
        """The trial of this key, queued now if the run has none yet; it keeps its first purpose."""
        key = {
            "run_id": run_id,
            "architecture_id": architecture_id,
            "task": task,
            "rung": rung,
            "seed": seed,
            "learning_rate": learning_rate,
        }
        with self._database.write() as connection:
            touch(connection, run_id)
            run_of_architecture(connection, architecture_id)
            existing = connection.scalar(select(Trial.id).filter_by(**key))
            if existing is not None:
                return trial_row(connection, existing)
            trial_id = new_id()
            connection.execute(
                insert(Trial).values(
                    id=trial_id,
                    tokens=tokens,
                    purpose=purpose,
                    state="queued",
                    epoch=0,
                    attempts=0,
                    queued_at=utc_now(),
                    **key,
                )
            )
            return trial_row(connection, trial_id)

    def finish_trial(self, trial_id: str, epoch: int, outcome: TrialOutcome) -> bool:
        """Store a trial's end, its measurements and its files, and its architecture's new state.

        All or nothing; False, with nothing stored, if `epoch` is stale or the trial has ended.
        """
        files = {"checkpoint_hash": outcome.checkpoint, "weights_hash": outcome.weights}
        kept = {name: content for name, content in files.items() if content is not None}
        hashes = {name: self.blobs.put(content) for name, content in kept.items()}
        with self._database.write() as connection:
            touch(connection, run_of_trial(connection, trial_id))
            is_ours = update_running(
                connection,
                trial_id,
                epoch,
                state="done" if outcome.status == "done" else "failed",
                status=outcome.status,
                reason=outcome.reason,
                alarm=outcome.alarm,
                wall_s=outcome.wall_s,
                device=outcome.device,
                sandbox=outcome.sandbox,
                environment=dict(outcome.environment),
                window_nats=outcome.window_nats,
                finished_at=utc_now(),
                **hashes,
            )
            if is_ours:
                _insert_metrics(connection, trial_id, outcome)
                architecture_id = trial_row(connection, trial_id).architecture_id
                replace_trained_gates(connection, architecture_id, outcome)
                update_architecture_state(connection, architecture_id)
        if is_ours:  # a run that dropped the same bytes meanwhile did not see our reference yet
            for name, content in kept.items():
                self.blobs.ensure(hashes[name], content)
        return is_ours

    def drop_checkpoint(self, trial_id: str) -> None:
        """Forget a trial's checkpoint, which no later rung will continue, and free its disk."""
        with self._database.write() as connection:
            touch(connection, run_of_trial(connection, trial_id))
            digest = trial_row(connection, trial_id).checkpoint_hash
            is_it = Trial.id == trial_id
            connection.execute(update(Trial).where(is_it).values(checkpoint_hash=None))
        if digest is not None:
            self.blobs.remove(digest, lambda: self._refers_to(digest))

    def trial(self, trial_id: str) -> TrialRow:
        """The trial of this id; raises StoreError for an unknown one."""
        with self._database.read() as connection:
            return trial_row(connection, trial_id)

    def queued_trials(self, run_id: str) -> tuple[TrialRow, ...]:
        """Trials that wait for a worker, oldest first."""
        with self._database.read() as connection:
            return select_trials(connection, (Trial.run_id == run_id) & (Trial.state == "queued"))

    def trials(self, run_id: str, architecture_id: str | None = None) -> tuple[TrialRow, ...]:
        """The trials of a run, or of one of its architectures, oldest first."""
        chosen = Trial.run_id == run_id
        if architecture_id is not None:
            chosen &= Trial.architecture_id == architecture_id
        with self._database.read() as connection:
            return select_trials(connection, chosen)

    def _refers_to(self, digest: str) -> bool:
        refers = or_(Trial.checkpoint_hash == digest, Trial.weights_hash == digest)
        with self._database.read() as connection:
            return connection.scalar(select(Trial.id).where(refers).limit(1)) is not None


def _insert_metrics(connection: Connection, trial_id: str, outcome: TrialOutcome) -> None:
    rows = list(_metric_rows(trial_id, outcome))
    if rows:
        connection.execute(insert(Metric), rows)


def _metric_rows(trial_id: str, outcome: TrialOutcome) -> Iterator[dict[str, Any]]:
    for name, value in outcome.metrics.items():
        yield {"trial_id": trial_id, "name": name, "step": None, "value": value}
    for step, value in outcome.curve:
        yield {"trial_id": trial_id, "name": CURVE, "step": step, "value": value}
