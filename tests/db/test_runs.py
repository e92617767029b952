from __future__ import annotations

import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from linearch.db import Store, this_process
from linearch.db.schema import Run
from linearch.errors import StoreError

ELSEWHERE = "another-host:17"


def silence(store: Store, run_id: str, by: timedelta) -> None:
    with store._database.write() as connection:
        heard = {"heartbeat_at": datetime.now(UTC) - by}
        connection.execute(update(Run).where(Run.id == run_id).values(**heard))


def test_a_run_keeps_its_whole_configuration(store: Store) -> None:
    config = {"profile": "cpu", "training": {"learning_rates": [0.003]}}
    run = store.run(store.create_run(config, {"torch": "2.8"}, seed=7, name="first"))
    assert (run.config, run.versions, run.seed, run.name) == (config, {"torch": "2.8"}, 7, "first")
    assert (run.state, run.owner, run.elapsed_s) == ("running", None, None)


def test_a_run_with_a_living_owner_elsewhere_is_not_given_away(store: Store) -> None:
    run_id = store.create_run({}, {}, seed=0)
    assert store.claim_run(run_id, ELSEWHERE) == 1
    with pytest.raises(StoreError, match=f"being driven by {ELSEWHERE}; stop that process"):
        store.claim_run(run_id)
    assert store.run(run_id).owner == ELSEWHERE


@pytest.mark.parametrize("silent_for", [timedelta(seconds=31), timedelta(hours=-1)])
def test_a_silent_owner_loses_its_run_even_if_the_clock_jumped(
    store: Store, silent_for: timedelta
) -> None:
    run_id = store.create_run({}, {}, seed=0)
    first = store.claim_run(run_id, ELSEWHERE)
    silence(store, run_id, silent_for)
    second = store.claim_run(run_id)
    assert second == first + 1
    assert not store.heartbeat(run_id, first, 10.0)
    assert not store.end_run(run_id, first, "finished", "thought it was mine")
    assert store.heartbeat(run_id, second, 11.0)
    run = store.run(run_id)
    assert (run.state, run.owner, run.elapsed_s) == ("running", this_process(), 11.0)


def test_an_owner_whose_process_died_on_this_host_loses_its_run_at_once(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    run_id = store.create_run({}, {}, seed=0)
    store.claim_run(run_id, f"{socket.gethostname()}:{dead.pid}")
    assert store.claim_run(run_id) == 2


def test_an_owner_that_lives_on_this_host_keeps_its_run(store: Store) -> None:
    run_id = store.create_run({}, {}, seed=0)
    store.claim_run(run_id, f"{socket.gethostname()}:1")
    with pytest.raises(StoreError, match="being driven"):
        store.claim_run(run_id)


def test_an_ended_run_is_free_and_runs_again_when_claimed(store: Store) -> None:
    run_id = store.create_run({}, {}, seed=0)
    epoch = store.claim_run(run_id, ELSEWHERE)
    assert store.end_run(run_id, epoch, "interrupted", "Ctrl-C", elapsed_s=12.5)
    run = store.run(run_id)
    assert (run.state, run.stop_reason, run.elapsed_s) == ("interrupted", "Ctrl-C", 12.5)
    store.claim_run(run_id)
    run = store.run(run_id)
    assert (run.state, run.stop_reason) == ("running", None)


def test_a_run_is_found_by_the_start_of_its_id(store: Store) -> None:
    run_id = store.create_run({}, {}, seed=0)
    assert store.run(run_id.lower()[:12]).id == run_id
    assert store.latest_run() == store.run(run_id)


def test_an_unknown_run_is_answered_with_those_there_are(store: Store) -> None:
    assert store.latest_run() is None
    with pytest.raises(StoreError, match="holds no run yet; start one with launch-search"):
        store.run("01ABC")
    ids = [store.create_run({}, {}, seed=0) for _ in range(7)]
    with pytest.raises(StoreError, match=f"{ids[6]}, {ids[5]}.* and 2 more") as caught:
        store.run("%")
    assert ids[0] not in str(caught.value)
    with pytest.raises(StoreError, match=f"Several runs start with '01': {ids[0]}"):
        store.run("01")
    with pytest.raises(StoreError, match="no run 'nowhere'"):
        store.claim_run("nowhere")


def test_runs_are_listed_newest_first(store: Store) -> None:
    ids = [store.create_run({}, {}, seed=seed) for seed in range(3)]
    assert [run.id for run in store.runs()] == ids[::-1]
