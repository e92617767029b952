from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from linearch.db import Store, default_store_url
from linearch.db.location import parse_location, refuse_network_filesystem, shown
from linearch.errors import StoreError

WORKER = Path(__file__).with_name("store_worker.py")


def test_a_store_and_its_folders_are_made_and_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "some" / "where" / "linearch.db"
    with Store.open(file) as store:
        run_id = store.create_run({}, {}, seed=0)
    with Store.open(f"sqlite:///{file}", create=False) as store:
        assert store.run(run_id).state == "running"
        assert store.location == str(file)
        assert store.blobs.folder == file.parent / "blobs"


def test_the_default_store_is_the_environments_or_below_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LINEARCH_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_store_url() == "runs/linearch.db"
    with Store.open() as store:
        assert store.location == str(tmp_path / "runs" / "linearch.db")
    monkeypatch.setenv("LINEARCH_STORE", str(tmp_path / "other.db"))
    with Store.open() as store:
        assert store.location == str(tmp_path / "other.db")


def test_a_missing_store_is_not_made_without_leave(empty_url: str) -> None:
    with pytest.raises(StoreError, match=r"no store.* launch-search"):
        Store.open(empty_url, create=False)
    with pytest.raises(StoreError, match="no store"):  # the first try left nothing behind
        Store.open(empty_url, create=False)


def test_a_store_of_a_newer_schema_is_refused(empty_url: str) -> None:
    with Store.open(empty_url) as store, store._database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(StoreError, match=r"newer linearch \(schema 0999.*upgrade linearch"):
        Store.open(empty_url)
    with pytest.raises(StoreError, match="newer linearch"):
        Store.open(empty_url, create=False)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE trials (id INTEGER)")
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"another program's table 'trials'.*--store"):
        Store.open(file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all, but long enough to look at\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt is not an SQLite database.*--store"):
        Store.open(file)


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "linearch.db"
    with Store.open(file) as store:
        store.create_run({}, {}, seed=0)
    content = bytearray(file.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged; restore a copy"):
        Store.open(file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is a folder; name a file"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Cannot make the folder"):
        Store.open(tmp_path / "file" / "linearch.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "what://"])
def test_urls_that_cannot_hold_a_store_are_refused(url: str) -> None:
    with pytest.raises(StoreError):
        Store.open(url)


def test_a_postgresql_store_without_its_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"pip install 'linearch\[postgres\]'"):
        Store.open("postgresql://host/database")


def test_an_unreachable_server_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(f"postgresql://me:secret@/db?host={tmp_path}")
    message = str(caught.value)
    assert "cannot be reached; check the URL" in message
    assert "secret" not in message
    assert "\n" not in message


def test_passwords_are_never_shown() -> None:
    assert "secret" not in shown(parse_location("postgres://me:secret@host/db"))


@pytest.mark.parametrize(
    ("filesystem", "is_refused"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False), ("overlay", False)],
)
def test_network_file_systems_are_refused(
    tmp_path: Path, filesystem: str, is_refused: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"40 21 0:50 / /home/me/my\\040runs rw,nosuid shared:9 - {filesystem} server:/x rw\n"
    )
    refuse_network_filesystem(Path("/home/me"), mounts)
    if is_refused:
        with pytest.raises(StoreError, match=f"network file system \\({filesystem}\\)"):
            refuse_network_filesystem(Path("/home/me/my runs/deep"), mounts)
    else:
        refuse_network_filesystem(Path("/home/me/my runs/deep"), mounts)


def test_processes_that_open_a_new_store_at_once_all_succeed(
    empty_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(WORKER), "open", empty_url, str(tmp_path / "blobs"), "-", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    engine = create_engine(parse_location(empty_url))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
    engine.dispose()


def test_sqlite_keeps_what_it_promises(tmp_path: Path) -> None:
    with Store.open(tmp_path / "linearch.db") as store, store._database.write() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }
