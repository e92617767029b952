"""What the pages read: one run of the store at one moment, each query made once per change.

Rows are frozen, so sessions share them (cache_resource) and nothing is copied. They are kept under
the run's change token: a finished run is read once, a running one again when a row of it changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from ..db import (
    ArchitectureDetail,
    ArchitectureRow,
    BestPoint,
    EventRow,
    Funnel,
    LeaderboardRow,
    Lineage,
    RunRow,
    Spent,
    StatisticRow,
    Store,
)

Result = TypeVar("Result")
_VIEW = "_view"  # where the session keeps what its current execution shows


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A run as one execution of the script shows it."""

    store: Store
    run: RunRow
    token: str

    @property
    def noise_baseline(self) -> str:
        """What the seed noise was measured on and differences are measured from."""
        return str(self.run.config.get("ladder", {}).get("noise_baseline", "the baseline"))

    def leaderboard(self) -> tuple[LeaderboardRow, ...]:
        return self._read("leaderboard", lambda: self.store.queries.leaderboard(self.run.id))

    def lineage(self) -> Lineage:
        return self._read("lineage", lambda: self.store.queries.lineage(self.run.id))

    def funnel(self) -> Funnel:
        return self._read("funnel", lambda: self.store.queries.funnel(self.run.id))

    def spent(self) -> Spent:
        return self._read("spent", lambda: self.store.queries.budget_spent(self.run.id))

    def best_so_far(self, rung: int) -> tuple[BestPoint, ...]:
        return self._read("best", lambda: self.store.queries.best_so_far(self.run.id, rung), rung)

    def events(self, limit: int) -> tuple[EventRow, ...]:
        return self._read(
            "events", lambda: self.store.queries.events(self.run.id, limit=limit), limit
        )

    def statistics(self, name: str) -> tuple[StatisticRow, ...]:
        return self._read(
            "statistics", lambda: self.store.queries.statistics(self.run.id, name), name
        )

    def architecture(self, key: str) -> ArchitectureDetail:
        """Raises StoreError for one that this run does not hold."""
        return self._read(
            "architecture", lambda: self.store.queries.architecture(key, self.run.id), key
        )

    def sources(self, ids: tuple[str, ...]) -> dict[str, ArchitectureRow]:
        """Whole rows, which have the sources that leaderboard rows lack."""
        return self._read("sources", lambda: self.store.queries.architectures_by_id(ids), ids)

    def _read(self, what: str, query: Callable[[], Result], *arguments: Any) -> Result:
        result: Result = _cached(
            self.store.location, self.run.id, self.token, what, arguments, query
        )
        return result


def open_store(location: str) -> Store:
    """The store, opened once for all sessions; raises StoreError if it cannot be."""
    file = Path(location)
    return _opened(location, file.stat().st_ino if file.exists() else None)


def show(view: View) -> None:
    """Make `view` what the page of this execution renders."""
    st.session_state[_VIEW] = view


def current_view() -> View:
    view = st.session_state[_VIEW]
    assert isinstance(view, View)
    return view


def runs_of(store: Store, token: str) -> tuple[RunRow, ...]:
    """All runs, newest first; `token` is the whole store's."""
    runs: tuple[RunRow, ...] = _cached(store.location, None, token, "runs", (), store.runs)
    return runs


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened(location: str, inode: int | None) -> Store:
    """`inode` opens anew a file that was deleted and made again."""
    return Store.open(location, create=False)


@st.cache_resource(show_spinner=False, max_entries=32)
def _cached(
    location: str,
    run_id: str | None,
    token: str,
    what: str,
    arguments: tuple[Any, ...],
    _query: Callable[[], Any],
) -> Any:
    return _query()
