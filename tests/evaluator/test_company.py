"""What fails beside others on a GPU under MPS is tried again alone before it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from linearch.evaluator.company import CompanyPool, may_be_a_neighbours_fault
from linearch.evaluator.ray_pool import Finished, JudgeJob, TrialJob
from linearch.evaluator.results import GateResult, Judgement, Stage, TrialResult, TrialSpec

Job = JudgeJob | TrialJob
Value = Judgement | TrialResult | None

DONE = TrialResult(status="done")
FAULT = "CUDA error: an illegal memory access was encountered"
CRASHED = TrialResult(status="crashed", reason=f"training: {FAULT}")
SPEC = TrialSpec(
    source="",
    pattern="L",
    mlp_width=8,
    task="corpus",
    rung=0,
    tokens=1,
    seed=0,
    learning_rate=1e-3,
)


class Workers:
    """Four workers; jobs end in the order of submission, as `answer` says of a job and of those
    that were beside it."""

    slots = 4

    def __init__(self, answer: Callable[[Job, frozenset[str]], Value]) -> None:
        self._answer = answer
        self._beside: dict[str, tuple[Job, set[str]]] = {}
        self.started: list[tuple[str, int]] = []  # a key, and how many ran beside it then

    @property
    def idle(self) -> int:
        return self.slots - len(self._beside)

    def submit(self, job: Job) -> None:
        assert self.idle > 0
        for _, others in self._beside.values():
            others.add(job.key)
        self.started.append((job.key, len(self._beside)))
        self._beside[job.key] = (job, set(self._beside))

    def wait(self, timeout_s: float) -> list[Finished]:
        del timeout_s
        if not self._beside:
            return []
        key = next(iter(self._beside))
        job, others = self._beside.pop(key)
        return [Finished(job=job, value=self._answer(job, frozenset(others)))]


def trial(key: str) -> TrialJob:
    return TrialJob(key=key, spec=SPEC)


def gates(key: str) -> JudgeJob:
    return JudgeJob(key=key, source="", pattern="L", is_reference=False)


def judged(reason: str | None, stage: Stage = "device") -> Judgement:
    return Judgement(
        results=(GateResult(gate="shape", passed=reason is None, reason=reason, stage=stage),)
    )


def run(workers: Workers, *jobs: Job) -> dict[str, Finished]:
    """What is told of jobs that start together; while one waits, no worker may count as idle."""
    pool = CompanyPool(workers)
    for job in jobs:
        pool.submit(job)
    told: dict[str, Finished] = {}
    for _ in range(100):
        if len(told) == len(jobs):
            break
        told |= {finished.job.key: finished for finished in pool.wait(0.1)}
        assert pool.idle <= workers.idle
    assert set(told) == {job.key for job in jobs}
    assert pool.idle == workers.idle == workers.slots
    return told


def faulty(culprit: str) -> Callable[[Job, frozenset[str]], Value]:
    """The culprit's fault ends all that runs beside it."""

    def answer(job: Job, others: frozenset[str]) -> Value:
        return CRASHED if culprit in {job.key, *others} else DONE

    return answer


def test_a_fault_is_booked_on_its_culprit_and_its_neighbours_are_scored() -> None:
    workers = Workers(faulty("b"))
    told = run(workers, trial("a"), trial("b"), trial("c"), trial("d"))
    assert told["b"].value == CRASHED
    assert all(told[key].value == DONE for key in "acd")
    assert all(finished.infra_error is None for finished in told.values())


def test_a_suspect_runs_with_nothing_beside_it_and_is_scored_in_company() -> None:
    workers = Workers(faulty("a"))
    run(workers, trial("a"), trial("b"), trial("c"))
    together = [("a", 0), ("b", 1), ("c", 2)]
    alone = [("a", 0), ("b", 0), ("c", 0)]
    again = workers.started[6:]
    assert workers.started[:6] == together + alone
    assert sorted(key for key, _ in again) == ["b", "c"]
    assert [beside for _, beside in again] == [0, 1]


def test_no_job_is_started_beside_one_that_runs_alone() -> None:
    workers = Workers(faulty("a"))
    pool = CompanyPool(workers)
    for key in "ab":
        pool.submit(trial(key))
    assert pool.wait(0.1) == []  # a has crashed; b still runs
    assert workers.idle == 3
    assert pool.idle == 0
    assert pool.wait(0.1) == []  # b too
    assert (workers.idle, pool.idle) == (4, 0)
    assert [finished.job.key for finished in pool.wait(0.1)] == ["a"]
    assert pool.idle == 0


def test_what_fails_twice_beside_others_and_not_alone_is_no_fault_of_the_candidate() -> None:
    def answer(job: Job, others: frozenset[str]) -> Value:
        return CRASHED if others else DONE

    told = run(Workers(answer), trial("a"), trial("b"), trial("c"))
    assert all(finished.value is None for finished in told.values())
    assert all("alone" in (finished.infra_error or "") for finished in told.values())


def test_gates_that_pass_alone_are_told_at_once() -> None:
    def answer(job: Job, others: frozenset[str]) -> Value:
        return judged(f"The mixer gave no usable answer (raised): {FAULT}." if others else None)

    workers = Workers(answer)
    told = run(workers, gates("a"), gates("b"))
    assert all(finished.value == judged(None) for finished in told.values())
    assert len(workers.started) == 4


@pytest.mark.parametrize(
    "value",
    [
        judged(f"The mixer gave no usable answer (raised): {FAULT}."),
        judged("The candidate gave no usable answer (crashed): killed by SIGABRT."),
        judged("The candidate gave no usable answer (timeout): no answer within 20 s."),
        Judgement(results=(), infra_error="a child did not come up"),
        replace(CRASHED, reason="training: killed by SIGSEGV"),
        TrialResult(status="timeout", reason="training: no answer within 20 s"),
        TrialResult(status="stalled", reason="training: nothing was heard for 30 s"),
        TrialResult(status="infra", reason="a child did not come up"),
        TrialResult(status="protocol", reason="training: the process closed its connection"),
        TrialResult(status="unsound", reason=f"the trained weights fail the gate 'batch': {FAULT}"),
    ],
)
def test_what_a_neighbour_may_have_caused_is_not_booked(value: Judgement | TrialResult) -> None:
    job = gates("a") if isinstance(value, Judgement) else trial("a")
    assert may_be_a_neighbours_fault(Finished(job=job, value=value))


@pytest.mark.parametrize(
    "value",
    [
        judged(None),
        judged("Replacing later tokens moves earlier answers."),
        judged("The mixer gave no usable answer (raised): TypeError: 'int' is not callable."),
        judged("The candidate gave no usable answer (crashed): killed by SIGSEGV.", "cpu"),
        DONE,
        TrialResult(status="oom", reason="training: CUDA out of memory"),  # with a GPU alone
        judged("The mixer gave no usable answer (oom): CUDA out of memory."),
        TrialResult(status="diverged", reason="training: the loss stopped being finite"),
        TrialResult(status="noncausal", reason="pieces predict otherwise"),
        TrialResult(status="protocol", reason="training: more than 8 processes"),
        None,
    ],
)
def test_what_is_the_candidates_own_or_a_workers_death_is_told_at_once(
    value: Judgement | TrialResult | None,
) -> None:
    job = gates("a") if isinstance(value, Judgement) else trial("a")
    assert not may_be_a_neighbours_fault(Finished(job=job, value=value))
