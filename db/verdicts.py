"""What an architecture's ended trials make of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from .schema import Architecture, Trial

_FOUND_OUT = ("noncausal", "unsound")


def update_architecture_state(connection: Connection, architecture_id: str) -> None:
    """Derive the state after a trial ended.

    "rejected" if any trial found it out, for then no other number of it can be believed;
    "measured" once a training on the corpus has a score; "failed" when all of them failed. A
    quarantine ends by rejection or `Store.release` alone.
    """
    trials = connection.execute(
        select(Trial.state, Trial.status, Trial.reason, Trial.task)
        .where(Trial.architecture_id == architecture_id)
        .order_by(Trial.finished_at)
    ).all()
    unsound = next((trial for trial in trials if trial.status in _FOUND_OUT), None)
    corpus = [trial for trial in trials if trial.task == "corpus"]
    if unsound is not None:
        found_out = {"rejected_by": unsound.status, "reason": unsound.reason}
        _change(connection, architecture_id, ("rejected",), state="rejected", **found_out)
    elif any(trial.state == "done" for trial in corpus):
        final = ("rejected", "quarantined")
        _change(connection, architecture_id, final, state="measured", reason=None)
    elif corpus and all(trial.state == "failed" for trial in corpus):
        reason = corpus[-1].reason or corpus[-1].status
        _change(connection, architecture_id, ("rejected",), state="failed", reason=reason)


def set_quarantine(connection: Connection, architecture_id: str, reason: str) -> None:
    """Unless it is rejected, or was released before: an audit has looked at it then."""
    connection.execute(
        update(Architecture)
        .where(
            Architecture.id == architecture_id,
            Architecture.state != "rejected",
            Architecture.released_at.is_(None),
        )
        .values(state="quarantined", reason=reason)
    )


def _change(
    connection: Connection, architecture_id: str, final: tuple[str, ...], **values: Any
) -> None:
    """Sets values unless its state is one of `final`."""
    connection.execute(
        update(Architecture)
        .where(Architecture.id == architecture_id, Architecture.state.not_in(final))
        .values(**values)
    )
