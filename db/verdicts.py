"""What an architecture's ended trials make of it."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from .schema import Architecture, Trial


def update_architecture_state(connection: Connection, architecture_id: str) -> None:
    """Derive the state after a trial ended.

    "rejected" if any trial found it non-causal, for then no other number of it can be believed;
    "measured" once a training on the corpus has a score; "failed" when all of them failed.
    """
    trials = connection.execute(
        select(Trial.state, Trial.status, Trial.reason, Trial.task)
        .where(Trial.architecture_id == architecture_id)
        .order_by(Trial.finished_at)
    ).all()
    leak = next((trial for trial in trials if trial.status == "noncausal"), None)
    corpus = [trial for trial in trials if trial.task == "corpus"]
    if leak is not None:
        values = {"state": "rejected", "rejected_by": "noncausal", "reason": leak.reason}
    elif any(trial.state == "done" for trial in corpus):
        values = {"state": "measured", "reason": None}
    elif corpus and all(trial.state == "failed" for trial in corpus):
        values = {"state": "failed", "reason": corpus[-1].reason or corpus[-1].status}
    else:
        return
    connection.execute(
        update(Architecture)
        .where(Architecture.id == architecture_id, Architecture.state != "rejected")
        .values(**values)
    )
