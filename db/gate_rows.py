"""Gate results as rows: a judgement's all at once, those on trained weights with each trial."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from .inputs import GateOutcome, TrialOutcome
from .schema import GateResult

TRAINED = "trained"  # the stage of gates that ran on what a training left


def insert_gates(
    connection: Connection,
    architecture_id: str,
    results: Sequence[GateOutcome],
    sandbox: str | None,
) -> None:
    """Adds results after those that are there, in their order."""
    is_its = GateResult.architecture_id == architecture_id
    last = connection.scalar(select(func.max(GateResult.position)).where(is_its))
    rows = [
        {
            "architecture_id": architecture_id,
            "gate": result.gate,
            "stage": result.stage,
            "position": position,
            "passed": result.passed,
            "reason": result.reason,
            "evidence": dict(result.evidence),
            "duration_s": result.duration_s,
            "sandbox": sandbox,
        }
        for position, result in enumerate(results, start=0 if last is None else last + 1)
    ]
    if rows:
        connection.execute(insert(GateResult), rows)


def delete_gates(connection: Connection, architecture_id: str, stage: str | None = None) -> None:
    """Removes the results of one stage, or of all."""
    chosen = GateResult.architecture_id == architecture_id
    if stage is not None:
        chosen &= GateResult.stage == stage
    connection.execute(delete(GateResult).where(chosen))


def replace_trained_gates(
    connection: Connection, architecture_id: str, outcome: TrialOutcome
) -> None:
    """What the newest trained weights showed stands for the architecture; older weights are gone.

    A failure stays, though: trainings that end later do not clear an architecture.
    """
    if not outcome.gates or _has_failed_trained(connection, architecture_id):
        return
    delete_gates(connection, architecture_id, TRAINED)
    insert_gates(connection, architecture_id, outcome.gates, outcome.sandbox)


def _has_failed_trained(connection: Connection, architecture_id: str) -> bool:
    failed = select(GateResult.gate).where(
        GateResult.architecture_id == architecture_id,
        GateResult.stage == TRAINED,
        GateResult.passed.is_(False),
    )
    return connection.scalar(failed.limit(1)) is not None
