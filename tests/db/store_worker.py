"""Processes that use one store at once: `store_worker.py open|drain|produce URL BLOBS RUN COPIES`.

`open` opens (and so creates) the store. `drain` takes and finishes queued trials until none is
left. `produce` runs trials until it is killed at a random moment. The last two print each trial
once it is stored. Exits with the number of copies that failed of themselves.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
import traceback

import alembic.command  # noqa: F401 - imported before the copies, so that they start together

from linearch.db import Store
from linearch.evaluator.results import TrialResult


def drain(store: Store, run_id: str) -> None:
    while waiting := store.queued_trials(run_id):
        for trial in waiting:
            epoch = store.start_trial(trial.id)
            if epoch is not None:
                finish(store, trial.id, epoch)


def produce(store: Store, run_id: str) -> None:
    name = f"mixer-{os.getpid()}"
    architecture = store.add_architecture(
        run_id,
        name=name,
        motivation="",
        expectation="",
        origin="grammar",
        source=name,
        source_hash=name,
        normalised_hash=name,
        pattern="L",
    )
    for seed in itertools.count():
        trial = store.enqueue_trial(
            *(run_id, architecture.id),
            task="corpus",
            rung=0,
            tokens=1024,
            seed=seed,
            learning_rate=1e-3,
        )
        epoch = store.start_trial(trial.id)
        assert epoch is not None
        finish(store, trial.id, epoch)


def finish(store: Store, trial_id: str, epoch: int) -> None:
    result = TrialResult(
        status="done",
        metrics={"val_bpb": 2.5, "tokens_per_s": 1e4},
        curve=((512, 3.0), (1024, 2.0)),
        weights=trial_id.encode(),
    )
    if store.finish_trial(trial_id, epoch, result):
        print(trial_id, flush=True)


def work(job: str, url: str, blobs: str, run_id: str) -> None:
    with Store.open(url, blob_folder=blobs) as store:
        if job != "open":
            {"drain": drain, "produce": produce}[job](store, run_id)


def fork(output: int, job: str, *where: str) -> int:
    """A copy of this process, which has imported everything and opened nothing, at work."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(output, sys.stdout.fileno())
            work(job, *where)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def main(job: str, url: str, blobs: str, run_id: str, copies: str) -> int:
    reading, writing = os.pipe()
    pids = [fork(writing, job, url, blobs, run_id) for _ in range(int(copies))]
    os.close(writing)
    with os.fdopen(reading) as reports:
        if job == "produce":
            seen = [reports.readline() for _ in pids]  # all are at work, or soon will be
            print(*seen, sep="", end="")
            for pid in pids:
                time.sleep(random.uniform(0, 0.05))
                os.kill(pid, signal.SIGKILL)
        print(reports.read(), end="")
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return sum(os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0 for status in statuses)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
