"""Architectures: proposed once per run, judged once, with their parents and gate results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from ..errors import StoreError
from .gate_rows import delete_gates, insert_gates
from .ids import new_id
from .inputs import JudgementLike
from .records import Records, run_of_architecture, touch, utc_now
from .rows import ArchitectureRow, ArchitectureState, columns_of, rows_of
from .schema import Architecture, Parent
from .verdicts import set_quarantine


class DuplicateArchitecture(StoreError):
    """The run already holds this normalised source; `existing_id` names it."""

    def __init__(self, existing_id: str) -> None:
        super().__init__(f"This run already holds the same architecture as {existing_id}.")
        self.existing_id = existing_id


class ArchitectureRecords(Records):
    """Operations on architectures."""

    def add_architecture(
        self,
        run_id: str,
        *,
        name: str,
        motivation: str,
        expectation: str,
        origin: str,
        source: str,
        source_hash: str,
        normalised_hash: str,
        pattern: str,
        genome: Mapping[str, Any] | None = None,
        parents: Iterable[tuple[str, str]] = (),
        is_reference: bool = False,
        family: str | None = None,
    ) -> ArchitectureRow:
        """A new architecture in state "proposed"; `parents` are (architecture id, kind).

        Raises DuplicateArchitecture if the run has one with this `normalised_hash`.
        """
        architecture_id = new_id()
        with self._database.write() as connection:
            touch(connection, run_id)
            _refuse_duplicate(connection, run_id, normalised_hash)
            connection.execute(
                insert(Architecture).values(
                    id=architecture_id,
                    run_id=run_id,
                    number=_next_number(connection, run_id),
                    name=name,
                    motivation=motivation,
                    expectation=expectation,
                    origin=origin,
                    source=source,
                    source_hash=source_hash,
                    normalised_hash=normalised_hash,
                    pattern=pattern,
                    family=family,
                    genome=None if genome is None else dict(genome),
                    is_reference=is_reference,
                    state="proposed",
                    created_at=utc_now(),
                )
            )
            _add_parents(connection, architecture_id, parents)
            return architecture_row(connection, architecture_id)

    def record_judgement(self, architecture_id: str, judgement: JudgementLike) -> ArchitectureRow:
        """Store all gates and sizes at once; the state becomes "sound" or "rejected".

        A second judgement replaces the first. Raises ValueError for one that ended in an
        `infra_error` or has no results: judge again.
        """
        if judgement.infra_error is not None or not judgement.results:
            raise ValueError(f"no judgement of {architecture_id}: {judgement.infra_error}")
        failure = next((result for result in judgement.results if result.passed is False), None)
        with self._database.write() as connection:
            touch(connection, run_of_architecture(connection, architecture_id))
            delete_gates(connection, architecture_id)
            insert_gates(connection, architecture_id, judgement.results, judgement.sandbox)
            _set(
                connection,
                architecture_id,
                state="rejected" if failure else "sound",
                reason=failure.reason if failure else None,
                rejected_by=failure.gate if failure else None,
                mlp_width=judgement.mlp_width,
                n_params=judgement.n_params,
                flops_per_token=judgement.flops_per_token,
                state_bytes=judgement.state_bytes,
                state_bytes_at=dict(judgement.state_bytes_at) or None,
            )
            return architecture_row(connection, architecture_id)

    def reject(self, architecture_id: str, check: str, reason: str) -> None:
        """Mark as rejected by a check that is no gate of a judgement ("source", "novelty", …)."""
        with self._database.write() as connection:
            touch(connection, run_of_architecture(connection, architecture_id))
            _set(connection, architecture_id, state="rejected", rejected_by=check, reason=reason)

    def quarantine(self, architecture_id: str, reason: str) -> ArchitectureRow:
        """Take an architecture whose score is too good out of the ranking, until it is released.

        Changes nothing where it was rejected, or released before.
        """
        with self._database.write() as connection:
            touch(connection, run_of_architecture(connection, architecture_id))
            set_quarantine(connection, architecture_id, reason)
            return architecture_row(connection, architecture_id)

    def release(self, architecture_id: str) -> ArchitectureRow:
        """End a quarantine for good, after an audit that passed: the state is "measured" again.

        Raises StoreError for an architecture that is not in quarantine.
        """
        with self._database.write() as connection:
            touch(connection, run_of_architecture(connection, architecture_id))
            row = architecture_row(connection, architecture_id)
            if row.state != "quarantined":
                raise StoreError(f"{row.name} is {row.state}, not in quarantine.")
            released = {"state": "measured", "reason": None, "released_at": utc_now()}
            _set(connection, architecture_id, **released)
            return architecture_row(connection, architecture_id)

    def architecture(self, architecture_id: str) -> ArchitectureRow:
        """The architecture of this id; raises StoreError for an unknown one."""
        with self._database.read() as connection:
            run_of_architecture(connection, architecture_id)
            return architecture_row(connection, architecture_id)

    def architectures(
        self, run_id: str, *, states: Iterable[ArchitectureState] | None = None
    ) -> tuple[ArchitectureRow, ...]:
        """The run's architectures with their sources, in order of their numbers."""
        query = select(*columns_of(Architecture, ArchitectureRow)).where(
            Architecture.run_id == run_id
        )
        if states is not None:
            query = query.where(Architecture.state.in_(list(states)))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(Architecture.number))
            return rows_of(ArchitectureRow, rows.all())


def architecture_row(connection: Connection, architecture_id: str) -> ArchitectureRow:
    query = select(*columns_of(Architecture, ArchitectureRow))
    rows = connection.execute(query.where(Architecture.id == architecture_id))
    return rows_of(ArchitectureRow, rows)[0]


def _refuse_duplicate(connection: Connection, run_id: str, normalised_hash: str) -> None:
    existing = connection.scalar(
        select(Architecture.id).where(
            Architecture.run_id == run_id, Architecture.normalised_hash == normalised_hash
        )
    )
    if existing is not None:
        raise DuplicateArchitecture(existing)


def _next_number(connection: Connection, run_id: str) -> int:
    query = select(func.max(Architecture.number)).where(Architecture.run_id == run_id)
    return (connection.scalar(query) or 0) + 1


def _add_parents(connection: Connection, child_id: str, parents: Iterable[tuple[str, str]]) -> None:
    kinds = dict(parents)  # a parent named twice counts once
    for parent_id in kinds:
        run_of_architecture(connection, parent_id)
    if kinds:
        connection.execute(
            insert(Parent),
            [{"child_id": child_id, "parent_id": id_, "kind": kind} for id_, kind in kinds.items()],
        )


def _set(connection: Connection, architecture_id: str, **values: Any) -> None:
    connection.execute(
        update(Architecture).where(Architecture.id == architecture_id).values(**values)
    )
