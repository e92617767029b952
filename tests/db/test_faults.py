"""Faults of the surroundings: each is one clear sentence and leaves no half state."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from linearch.db import Store, database
from linearch.errors import StoreError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "linearch.db"


def test_a_full_disk_keeps_the_earlier_rows_and_says_to_free_space(file: Path) -> None:
    with Store.open(file) as store:
        run_id = store.create_run({}, {}, seed=0)
        with store._database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(StoreError, match=r"disk is full; free some space and resume"):
            store.add_event(run_id, "note", {"text": "x" * 100_000})
        assert store.queries.events(run_id) == ()
        assert store.run(run_id).revision == 0


def test_a_database_that_cannot_be_written_says_so(file: Path) -> None:
    with Store.open(file) as store:
        run_id = store.create_run({}, {}, seed=0)
        with store._database.read() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(StoreError, match="cannot be written; check the permissions"):
            store.add_event(run_id, "note")
        assert store.run(run_id).id == run_id


def test_a_writer_that_holds_the_lock_for_ever_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with Store.open(file) as store, Store.open(file) as other:
        run_id = store.create_run({}, {}, seed=0)
        with (
            other._database.write(),
            pytest.raises(StoreError, match=r"linearch\.db is locked by another process"),
        ):
            store.add_event(run_id, "note")
        store.add_event(run_id, "note")


@pytest.mark.postgres
def test_a_server_that_crashed_is_waited_for(postgres: Any, migrated_schema: str) -> None:
    with Store.open(migrated_schema) as store:
        run_id = store.create_run({}, {}, seed=0)
        store.add_event(run_id, "before")
        postgres.crash()
        restart = threading.Timer(0.3, postgres.start)
        restart.start()
        store.add_event(run_id, "after")
        restart.join()
        kinds = [event.kind for event in store.queries.events(run_id)]
    assert kinds == ["before", "after"]


@pytest.mark.postgres
def test_a_server_that_stays_away_is_one_sentence(
    postgres: Any, migrated_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(migrated_schema) as store:
        run_id = store.create_run({}, {}, seed=0)
        monkeypatch.setattr(store._database, "patience_s", 0.1)
        postgres.crash()
        try:
            with pytest.raises(StoreError, match=r"cannot be reached.* resume the run"):
                store.add_event(run_id, "note")
        finally:
            postgres.start()
