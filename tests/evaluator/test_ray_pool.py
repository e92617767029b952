"""How jobs get to the workers of a machine with two GPUs, on a Ray that only says what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linearch.config import RunConfig, WorkerConfig
from linearch.evaluator import ray_pool
from linearch.evaluator.packing import Work
from linearch.evaluator.ray_pool import JudgeJob, RayPool, TrialJob, work_of
from linearch.evaluator.results import GateResult, Judgement, TrialResult, TrialSpec

OOM = TrialResult(status="oom", reason="training: CUDA out of memory")
DONE = TrialResult(status="done", gpu_share=0.4)


class Died(Exception):
    pass


class Ray:
    """Two GPUs with two workers each. `answers`: what each call of a worker gives, in turn."""

    exceptions = SimpleNamespace(RayError=Died)

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.shares: list[tuple[str, float]] = []  # of each job, with the GPU it went to
        self._references = 0
        self._values: dict[int, Any] = {}
        self._n_workers = 0

    def remote(self, kind: type) -> Any:
        del kind
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._new_worker))

    def _new_worker(self, *_: Any) -> Any:
        name = f"gpu {self._n_workers // 2 % 2}"
        self._n_workers += 1

        def work(*asked: Any) -> int:
            self.shares.append((name, asked[-1]))
            return self._refer(self.answers.pop(0))

        return SimpleNamespace(
            gpu=SimpleNamespace(remote=lambda: self._refer(name)),
            judge=SimpleNamespace(remote=work),
            trial=SimpleNamespace(remote=work),
        )

    def _refer(self, value: Any) -> int:
        self._references += 1
        self._values[self._references] = value
        return self._references

    def wait(self, references: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int, timeout: float | None = None) -> Any:
        del timeout
        value = self._values.pop(reference)
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, worker: Any) -> None: ...
    def shutdown(self) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": 2.0}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    made = Ray()
    monkeypatch.setattr(ray_pool, "_start_ray", lambda *_: made)
    return made


@pytest.fixture
def pool(ray: Ray, tmp_path: Path) -> Iterator[RayPool]:
    config = RunConfig(workers=WorkerConfig(trials_at_once=2))
    made = RayPool(config, device="cuda", folder=tmp_path)
    yield made
    made.close()


def trial(key: str, source: str = "", task: str = "corpus") -> TrialJob:
    spec = TrialSpec(
        source=source,
        pattern="L",
        mlp_width=8,
        task=task,
        rung=0,
        tokens=1,
        seed=0,
        learning_rate=1e-3,
    )
    return TrialJob(key=key, spec=spec)


def test_jobs_spread_over_the_gpus_with_the_first_guess(pool: RayPool, ray: Ray) -> None:
    ray.answers = [DONE] * 4
    for key in "abcd":
        pool.submit(trial(key))
    assert sorted(ray.shares) == [("gpu 0", 0.5), ("gpu 0", 0.5), ("gpu 1", 0.5), ("gpu 1", 0.5)]
    assert pool.idle == 0


def test_what_ran_out_of_memory_waits_for_an_empty_gpu_and_is_told_once(
    pool: RayPool, ray: Ray
) -> None:
    ray.answers = [OOM, DONE, DONE, DONE]
    for key in "abc":  # on one, the other, and the first once more
        pool.submit(trial(key, source=key))
    assert pool.wait(0.0) == []  # the second GPU and half of the first are taken
    assert len(ray.shares) == 3
    assert pool.idle == 0  # though two workers have nothing to do
    (told,) = pool.wait(0.0)
    assert told.job.key == "b"
    assert ray.shares[3][1] == 1.0
    assert {pool.wait(0.0)[0].job.key for _ in range(2)} == {"a", "c"}
    assert pool.idle == pool.slots == 4


def test_a_worker_that_died_is_replaced_and_its_share_is_free(pool: RayPool, ray: Ray) -> None:
    ray.answers = [Died("out of   luck"), DONE]
    pool.submit(trial("a"))
    (told,) = pool.wait(0.0)
    assert (told.value, told.infra_error) == (None, "out of luck")
    assert pool.idle == pool.slots
    pool.submit(trial("a"))
    assert pool.wait(0.0)[0].value == DONE


def test_a_judgements_share_is_handed_on_too(pool: RayPool, ray: Ray) -> None:
    ray.answers = [Judgement(results=(GateResult(gate="shape", passed=True),))]
    pool.submit(JudgeJob(key="a", source="", pattern="L", is_reference=False))
    assert ray.shares == [("gpu 0", 0.5)]
    assert pool.wait(0.0)[0].job.key == "a"


def test_the_same_work_is_the_same_mixer_in_the_same_task() -> None:
    assert work_of(trial("a")) == work_of(trial("b"))
    assert work_of(trial("a")) != work_of(trial("a", task="mqar"))
    assert work_of(trial("a")) != work_of(trial("a", source="other"))
    gates = JudgeJob(key="a", source="", pattern="L", is_reference=False)
    assert work_of(gates) == Work("L\n", "gates")
