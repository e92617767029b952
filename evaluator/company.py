"""Trials in company: where processes share a GPU under MPS, a fault of one ends the CUDA of all.

Nobody can tell which of them was at fault. So what ends there as a fault of the GPU would is tried
again alone, with nothing else in any worker, before it is told; until then the job goes on. What
fails alone is the candidate's doing. A training that succeeds alone is repeated in company, for its
speed is compared with that of others there.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from typing import Protocol

from .packing import ran_out_of_gpu_memory
from .ray_pool import Finished, JudgeJob, TrialJob
from .results import Judgement

# What a reason holds where CUDA or one of its libraries failed, or the process is gone, going (the
# driver takes its time to release a GPU) or stuck.
_PERHAPS_FROM_OUTSIDE = re.compile(
    r"\bcu(da|blas|dnn|fft|rand|solver|sparse)"
    r"|\((crashed|timeout|stalled)\)|closed its connection",
    re.I,
)
_ACCIDENTS = ("crashed", "timeout", "stalled", "infra")


class Pool(Protocol):
    """Workers that run one job at a time each."""

    @property
    def slots(self) -> int: ...
    @property
    def idle(self) -> int: ...
    def submit(self, job: JudgeJob | TrialJob) -> None: ...
    def wait(self, timeout_s: float) -> list[Finished]: ...


class CompanyPool:
    """A pool whose workers' children share GPUs under MPS; it tells of no failure that a neighbour
    may have caused. No worker counts as idle while a job waits to be tried again.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._suspects: deque[JudgeJob | TrialJob] = deque()
        self._alone: JudgeJob | TrialJob | None = None
        self._cleared: list[JudgeJob | TrialJob] = []  # to run in company once more
        self._was_alone: set[str] = set()  # keys of those that do

    @property
    def slots(self) -> int:
        return self._pool.slots

    @property
    def idle(self) -> int:
        waits = self._suspects or self._cleared or self._alone is not None
        return 0 if waits else self._pool.idle

    def submit(self, job: JudgeJob | TrialJob) -> None:
        self._pool.submit(job)

    def wait(self, timeout_s: float) -> list[Finished]:
        """The jobs of which it is known how they ended."""
        self._start_waiting()
        weighed = map(self._weigh, self._pool.wait(timeout_s))
        return [finished for finished in weighed if finished is not None]

    def _start_waiting(self) -> None:
        if self._alone is not None:
            return
        if self._suspects:
            if self._pool.idle == self._pool.slots:
                self._alone = self._suspects.popleft()
                self._pool.submit(self._alone)
            return
        while self._cleared:
            job = self._cleared.pop()
            self._was_alone.add(job.key)
            self._pool.submit(job)

    def _weigh(self, finished: Finished) -> Finished | None:
        """What may be told of it; None where it is tried again."""
        job = finished.job
        if job is self._alone:
            self._alone = None
            if isinstance(job, JudgeJob) or not _has_score(finished):
                return finished
            self._cleared.append(job)
            return None
        has_been_alone = job.key in self._was_alone
        self._was_alone.discard(job.key)
        if not may_be_a_neighbours_fault(finished):
            return finished
        if has_been_alone:
            reason = "it succeeds alone on its GPU, and failed twice beside others there"
            return replace(finished, value=None, infra_error=reason)
        self._suspects.append(job)
        return None


def may_be_a_neighbours_fault(finished: Finished) -> bool:
    """Whether it ended as it would have if another process's fault had ended its CUDA.

    What the candidate raises with no word of CUDA, and what tensors prove, is its own.
    """
    value = finished.value
    if value is None:  # a worker died, which has no CUDA
        return False
    if ran_out_of_gpu_memory(value):  # told only where it had a GPU's memory alone: `packing.py`
        return False
    if isinstance(value, Judgement):
        if value.infra_error is not None:
            return True
        failure = value.failure
        return failure is not None and failure.stage == "device" and _could_be(failure.reason)
    if value.status in ("done", "diverged"):
        return False
    return value.status in _ACCIDENTS or _could_be(value.reason)


def _could_be(reason: str | None) -> bool:
    return _PERHAPS_FROM_OUTSIDE.search(reason or "") is not None


def _has_score(finished: Finished) -> bool:
    value = finished.value
    return value is not None and not isinstance(value, Judgement) and value.status == "done"
