"""Several processes at once, and processes that are killed: nothing is lost and nothing doubled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from linearch.db import CURVE, Store
from linearch.db.database import Database
from linearch.db.location import parse_location

WORKER = Path(__file__).with_name("store_worker.py")


def work(job: str, store: Store, run_id: str, copies: int) -> list[str]:
    """Runs copies of a worker and returns the trials they reported as stored."""
    where = [store.location, str(store.blobs.folder), run_id, str(copies)]
    command = [sys.executable, str(WORKER), job, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_eight_processes_finish_every_trial_once(lab: Any) -> None:
    row = lab.sound()
    queued = [lab.enqueue(row.id, seed=seed).id for seed in range(32)]
    assert Counter(work("drain", lab.store, lab.run_id, copies=8)) == Counter(queued)
    trials = lab.store.trials(lab.run_id)
    assert {(trial.state, trial.attempts, trial.epoch) for trial in trials} == {("done", 1, 1)}
    assert len(lab.store.queries.scores(lab.run_id)) == 32


def test_killed_writers_lose_nothing_they_reported(lab: Any) -> None:
    reported = work("produce", lab.store, lab.run_id, copies=10)
    assert len(reported) >= 10
    check_whole(lab.store, lab.run_id, reported)
    lab.store.requeue_orphans(lab.run_id)
    left = {trial.state for trial in lab.store.trials(lab.run_id)}
    assert left <= {"done", "queued"}


def check_whole(store: Store, run_id: str, reported: list[str]) -> None:
    """What was reported is stored, and what is stored as done is complete."""
    done = {trial.id: trial for trial in store.trials(run_id) if trial.state == "done"}
    assert set(reported) <= set(done)
    for id_, trial in done.items():
        assert store.blobs.get(trial.weights_hash or "") == id_.encode()
    for row in store.architectures(run_id, states=["measured"]):
        for detail in store.queries.architecture(row.id).trials:
            is_done = detail.trial.id in done
            assert detail.metrics == ({"val_bpb": 2.5, "tokens_per_s": 1e4} if is_done else {})
            assert (CURVE in detail.curves) == is_done
    if store._database.is_sqlite:
        with store._database.read() as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"


def test_threads_of_one_driver_number_architectures_without_gaps(lab: Any) -> None:
    with ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda n: lab.propose(f"mixer {n}"), range(40)))
    assert sorted(row.number for row in rows) == list(range(1, 41))


def test_readers_see_the_last_whole_state_while_a_writer_is_at_work(
    store: Store,
) -> None:
    run_id = store.create_run({}, {}, seed=0)
    before = store.queries.change_token(run_id)
    other = Database(parse_location(store.location))
    with other.write() as connection:
        connection.execute(text("UPDATE runs SET revision = revision + 1"))
        assert store.queries.change_token(run_id) == before
    other.close()
    assert store.queries.change_token(run_id) != before


def test_a_transaction_that_fails_leaves_nothing(lab: Any) -> None:
    parent = lab.propose()
    before = lab.store.queries.change_token(lab.run_id)
    with pytest.raises(IntegrityError):  # at its last statement
        lab.propose("half", parents=[(parent.id, None)])
    assert lab.store.architectures(lab.run_id) == (parent,)
    assert lab.store.queries.change_token(lab.run_id) == before
