"""One architecture with everything stored about it, and how it is found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from ..errors import StoreError
from .architecture_records import architecture_row
from .reader import Reader
from .rows import ArchitectureRow, StatisticRow, columns_of, rows_of
from .schema import (
    Analysis,
    Architecture,
    GateResult,
    Insight,
    LLMCall,
    Metric,
    Parent,
    Statistic,
    TextBody,
    Trial,
)
from .trial_leases import select_trials
from .views import ArchitectureDetail, GateRow, LLMCallRow, Note, Relative, TrialDetail


class DetailQueries(Reader):
    """Look-ups of single architectures and texts."""

    def find_architecture(self, key: str, run_id: str | None = None) -> str:
        """The id that `key` means: an id, the start of one, or a name (of `run_id`, by default of
        the newest run with that name). Raises StoreError if it means none or several."""
        with self._database.read() as connection:
            return _find(connection, key, run_id)

    def architecture(self, key: str, run_id: str | None = None) -> ArchitectureDetail:
        """Everything about the architecture that `find_architecture` finds."""
        with self._database.read() as connection:
            id_ = _find(connection, key, run_id)
            return ArchitectureDetail(
                architecture=architecture_row(connection, id_),
                gates=_gates(connection, id_),
                trials=_trials(connection, id_),
                parents=_relatives(connection, Parent.parent_id, Parent.child_id, id_),
                children=_relatives(connection, Parent.child_id, Parent.parent_id, id_),
                statistics=_statistics(connection, id_),
                analyses=_notes(connection, Analysis, Analysis.architecture_id == id_),
                llm_calls=_calls(connection, LLMCall.architecture_id == id_),
            )

    def runs_of(self, keys: Iterable[str]) -> set[str]:
        """The runs of the architectures that `find_architecture` finds by these keys."""
        with self._database.read() as connection:
            ids = {_find(connection, key, None) for key in keys}
            runs = select(Architecture.run_id).where(Architecture.id.in_(ids))
            return set(connection.scalars(runs))

    def find_trial(self, key: str) -> TrialDetail | None:
        """The one trial whose id is or begins with `key`, with everything measured in it; None
        where there is none, or where there are several."""
        begins = Trial.id.startswith(key.upper(), autoescape=True)
        with self._database.read() as connection:
            found = connection.execute(select(Trial.id, Trial.architecture_id).where(begins)).all()
            trials = _trials(connection, found[0][1]) if len(found) == 1 else ()
        return next((detail for detail in trials if detail.trial.id == found[0][0]), None)

    def architectures_by_id(self, ids: Iterable[str]) -> dict[str, ArchitectureRow]:
        """The full rows of these architectures, sources included."""
        query = select(*columns_of(Architecture, ArchitectureRow))
        with self._database.read() as connection:
            rows = connection.execute(query.where(Architecture.id.in_(list(ids))))
            return {row.id: row for row in rows_of(ArchitectureRow, rows)}

    def architecture_by_hash(self, source_hash: str) -> ArchitectureRow | None:
        """The newest architecture with this source, or None."""
        query = select(func.max(Architecture.id)).where(Architecture.source_hash == source_hash)
        with self._database.read() as connection:
            id_ = connection.scalar(query)
            return None if id_ is None else architecture_row(connection, id_)

    def llm_calls(self, run_id: str) -> tuple[LLMCallRow, ...]:
        """The run's calls, oldest first; `text` gives their prompts and replies."""
        with self._database.read() as connection:
            return _calls(connection, LLMCall.run_id == run_id)

    def insights(self, run_id: str) -> tuple[Note, ...]:
        with self._database.read() as connection:
            return _notes(connection, Insight, Insight.run_id == run_id)

    def text(self, digest: str) -> str:
        """A prompt or reply by its hash; raises StoreError for an unknown one."""
        with self._database.read() as connection:
            body = connection.scalar(select(TextBody.body).where(TextBody.hash == digest))
        if body is None:
            raise StoreError(f"There is no text with the hash {digest!r} in this store.")
        return body


def _find(connection: Connection, key: str, run_id: str | None) -> str:
    query = select(Architecture.id, Architecture.run_id, Architecture.name)
    if run_id is not None:
        query = query.where(Architecture.run_id == run_id)
    by_id = query.where(Architecture.id.startswith(key.upper(), autoescape=True))
    found = connection.execute(by_id.order_by(Architecture.id).limit(6)).all() if key else []
    if not found:
        named = connection.execute(query.where(Architecture.name == key)).all()
        newest = max((row.run_id for row in named), default=None)
        found = [row for row in named if row.run_id == newest]
    if len(found) == 1:
        return str(found[0].id)
    if found:
        shown = ", ".join(f"{row.id} ({row.name})" for row in found[:5])
        raise StoreError(f"{key!r} means several architectures: {shown}; give one whole id.")
    raise StoreError(_unknown(connection, key))


def _unknown(connection: Connection, key: str) -> str:
    newest = connection.execute(
        select(Architecture.id, Architecture.name).order_by(Architecture.id.desc()).limit(3)
    ).all()
    if not newest:
        return f"There is no architecture {key!r}; this store is empty, run launch-search first."
    shown = ", ".join(f"{id_} ({name})" for id_, name in newest)
    return f"There is no architecture {key!r} in this store; its newest are {shown}."


def _gates(connection: Connection, id_: str) -> tuple[GateRow, ...]:
    query = select(*columns_of(GateResult, GateRow)).where(GateResult.architecture_id == id_)
    rows = connection.execute(query.order_by(GateResult.position))
    return rows_of(GateRow, rows)


def _trials(connection: Connection, id_: str) -> tuple[TrialDetail, ...]:
    trials = select_trials(connection, Trial.architecture_id == id_)
    metrics: dict[str, dict[str, float | None]] = {trial.id: {} for trial in trials}
    curves: dict[str, dict[str, list[tuple[int, float | None]]]] = {
        trial.id: defaultdict(list) for trial in trials
    }
    points = connection.execute(
        select(Metric.trial_id, Metric.name, Metric.step, Metric.value)
        .join(Trial, Trial.id == Metric.trial_id)
        .where(Trial.architecture_id == id_)
        .order_by(Metric.step)
    )
    for trial_id, name, step, value in points:
        if step is None:
            metrics[trial_id][name] = value
        else:
            curves[trial_id][name].append((step, value))
    return tuple(
        TrialDetail(
            trial=trial,
            metrics=metrics[trial.id],
            curves={name: tuple(points) for name, points in curves[trial.id].items()},
        )
        for trial in trials
    )


def _relatives(connection: Connection, wanted: Any, given: Any, id_: str) -> tuple[Relative, ...]:
    query = (
        select(Architecture.id, Architecture.number, Architecture.name, Architecture.state)
        .add_columns(Parent.kind)
        .join(Parent, Architecture.id == wanted)
        .where(given == id_)
    )
    rows = connection.execute(query.order_by(Architecture.number))
    return rows_of(Relative, rows)


def _statistics(connection: Connection, id_: str) -> dict[str, tuple[StatisticRow, ...]]:
    rows = connection.execute(
        select(Statistic.name, *columns_of(Statistic, StatisticRow))
        .where(Statistic.architecture_id == id_)
        .order_by(Statistic.id)
    )
    found: dict[str, tuple[StatisticRow, ...]] = {}
    for name, *values in rows:
        found[name] = found.get(name, ()) + rows_of(StatisticRow, [values])
    return found


def _notes(
    connection: Connection, table: type[Analysis] | type[Insight], chosen: ColumnElement[bool]
) -> tuple[Note, ...]:
    query = select(*columns_of(table, Note)).where(chosen).order_by(table.id)
    return rows_of(Note, connection.execute(query))


def _calls(connection: Connection, chosen: ColumnElement[bool]) -> tuple[LLMCallRow, ...]:
    query = select(*columns_of(LLMCall, LLMCallRow)).where(chosen).order_by(LLMCall.id)
    return rows_of(LLMCallRow, connection.execute(query))
