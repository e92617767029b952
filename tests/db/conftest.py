"""Stores to test against: a fresh SQLite file, and a fresh schema of a real PostgreSQL server."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, text

from linearch.db import ArchitectureRow, Store, TrialRow
from linearch.db.schema import Base
from linearch.evaluator.results import GateResult, Judgement, TrialResult

_numbers = itertools.count(1)


class PostgresServer:
    """A server of our own, reached by a socket in its folder."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="linearch-pg-"))  # a socket's path is short
        self._as_owner: list[str] = []
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, pwd.getpwnam("postgres").pw_uid)
            self._as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        self.url = f"postgresql://postgres@/postgres?host={self._folder}"
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c max_connections=60"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def crash(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "stop")

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        subprocess.run(
            [*self._as_owner, *command], check=True, capture_output=True, cwd="/", timeout=60
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that runs as long as the tests."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server below /usr/lib/postgresql")
    server = PostgresServer(found[-1].parent)
    server.start()
    yield server
    server.crash()
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is stored yet, on either database."""
    if backend == "sqlite":
        return str(tmp_path / "linearch.db")
    return fresh_schema(request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "linearch.db"
    Store.open(file).close()
    return file


@pytest.fixture(scope="session")
def migrated_schema(postgres: PostgresServer) -> str:
    url = fresh_schema(postgres)
    Store.open(url).close()
    return url


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open store without rows, on either database."""
    if backend == "sqlite":
        template = request.getfixturevalue("migrated_file")
        url = str(shutil.copy(template, tmp_path / "linearch.db"))
    else:
        url = request.getfixturevalue("migrated_schema")
    with Store.open(url, create=False, blob_folder=tmp_path / "blobs") as opened:
        yield opened
        if backend == "postgresql":  # the next test gets the same tables
            with opened._database.write() as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    connection.execute(delete(table))


def fresh_schema(server: PostgresServer) -> str:
    schema = f"test_{next(_numbers)}"
    engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    return f"{server.url}&options=-csearch_path%3D{schema}"


class Lab:
    """Short ways to fill one run of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.run_id = store.create_run({"profile": "cpu"}, {"linearch": "0"}, seed=0)

    def propose(self, name: str = "mixer", **changes: Any) -> ArchitectureRow:
        number = next(_numbers)
        facts: dict[str, Any] = {
            "name": name,
            "motivation": "less forgetting",
            "expectation": "lower loss",
            "origin": "grammar",
            "source": f"# {number}",
            "source_hash": f"source-{number}",
            "normalised_hash": f"normal-{number}",
            "pattern": "L",
        }
        return self.store.add_architecture(self.run_id, **{**facts, **changes})

    def judge(self, architecture_id: str, failing: str | None = None) -> ArchitectureRow:
        gates = ("causality", "streaming")
        results = tuple(
            GateResult(gate=gate, passed=gate != failing, reason=f"{gate} broke", duration_s=0.1)
            for gate in gates[: gates.index(failing) + 1 if failing else None]
        )
        judgement = Judgement(
            results=results,
            mlp_width=172,
            n_params=119_808,
            state_bytes=16_384,
            state_bytes_at={64: 16_384, 1024: 16_384},
            sandbox="confined",
        )
        return self.store.record_judgement(architecture_id, judgement)

    def sound(self, name: str = "mixer", **changes: Any) -> ArchitectureRow:
        return self.judge(self.propose(name, **changes).id)

    def enqueue(self, architecture_id: str, **changes: Any) -> TrialRow:
        key: dict[str, Any] = {"task": "corpus", "rung": 0, "seed": 0, "learning_rate": 3e-3}
        key = {**key, "tokens": 131_072, **changes}
        return self.store.enqueue_trial(self.run_id, architecture_id, **key)

    def finish(self, trial_id: str, result: TrialResult) -> bool:
        epoch = self.store.start_trial(trial_id)
        assert epoch is not None
        return self.store.finish_trial(trial_id, epoch, result)

    def score(self, architecture_id: str, val_bpb: float, **changes: Any) -> TrialRow:
        """A finished trial on the corpus."""
        trial = self.enqueue(architecture_id, **changes)
        metrics = {"val_bpb": val_bpb, "tokens_per_s": 1000.0, "peak_memory_bytes": None}
        assert self.finish(trial.id, TrialResult(status="done", metrics=metrics, wall_s=2.0))
        return self.store.trial(trial.id)


@pytest.fixture
def lab(store: Store) -> Lab:
    return Lab(store)
