"""Packing: which jobs share a GPU, by the memory that jobs like them were measured to take.

A job waits until its share fits beside what runs on some GPU; an empty one takes any. The share of
a mixer's work (its gates, its training on the corpus or on a task) is the most that was measured of
just that, with a margin; before the first measurement the GPU divided by `workers.trials_at_once`,
which is also the most jobs at a time, and what each may take by right: no margin goes beyond it.
What runs out of GPU memory with less than a whole GPU is tried again with one alone, and then has
what was measured there. Small shares are forecasts: where one is wrong a neighbour may run out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .results import Judgement, TrialResult

_MARGIN = 1.1  # the same work takes other memory where its pieces fall otherwise
_ROUNDING = 1e-9
_OF_A_GPU = re.compile(r"\bcuda\b|\bcu(blas|dnn)|GPU memory", re.I)

_Job = TypeVar("_Job")


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with a mixer: its gates, or training on the corpus or a task."""

    mixer: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat(Generic[_Job]):
    """A job that may start now, on this GPU, and the share of its memory that it may take."""

    job: _Job
    gpu: str
    share: float


class Packing(Generic[_Job]):
    """Jobs in the order they came, each with its work; shares are of one GPU's memory.

    `at_once` is None where there is no GPU, so that nothing ever waits for memory.
    """

    def __init__(self, at_once: int | None) -> None:
        self._guess = 0.0 if at_once is None else 1.0 / at_once
        self._measured: dict[Work, float] = {}
        self._hungry: set[Work] = set()  # what once ran out of its share
        # With the share that it must have, None where it is the forecast's.
        self._waiting: deque[tuple[_Job, Work, float | None]] = deque()
        self._seats: dict[Work, list[Seat[_Job]]] = {}

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def ask(self, job: _Job, work: Work) -> None:
        self._waiting.append((job, work, None))

    def start_next(self, idle: Sequence[str]) -> Seat[_Job] | None:
        """The job that has waited longest, where it fits on a GPU with an `idle` worker. Others
        wait behind it, on other GPUs too, or a large one would never find an empty one."""
        if not self._waiting:
            return None
        job, work, share = self._waiting[0]
        share = self.share_of(work) if share is None else share
        for gpu in sorted(dict.fromkeys(idle), key=self._taken):
            if fits(share, self._taken(gpu)):
                self._waiting.popleft()
                seat = Seat(job=job, gpu=gpu, share=share)
                self._seats.setdefault(work, []).append(seat)
                return seat
        return None

    def end(self, seat: Seat[_Job], work: Work, value: Judgement | TrialResult | None) -> bool:
        """Books what the job took. False where it is tried again alone instead of being told."""
        self._seats[work].remove(seat)
        if ran_out_of_gpu_memory(value):
            self._hungry.add(work)
            self._measured.pop(work, None)
            if max(seat.share, self._guess) < 1.0:
                self._waiting.appendleft((seat.job, work, 1.0))
                return False
        elif value is not None and value.gpu_share is not None:
            # Its own word may be all there is, and it cannot have had more than it was let have.
            took = min(value.gpu_share, max(seat.share, self._guess))
            self._measured[work] = max(took, self._measured.get(work, 0.0))
        return True

    def share_of(self, work: Work) -> float:
        known = self._measured.get(work)
        if known is None:
            return 1.0 if work in self._hungry else self._guess
        return min(_MARGIN * known, self._guess if known <= self._guess else 1.0)

    def _taken(self, gpu: str) -> float:
        return sum(
            seat.share for seats in self._seats.values() for seat in seats if seat.gpu == gpu
        )


def fits(share: float, taken: float) -> bool:
    """Whether a job may begin where jobs with `taken` shares in all run; alone it always may."""
    return taken == 0.0 or taken + share <= 1.0 + _ROUNDING


def ran_out_of_gpu_memory(value: Judgement | TrialResult | None) -> bool:
    if isinstance(value, Judgement):
        failure = value.failure
        reason = failure.reason if failure is not None and failure.stage == "device" else None
        is_oom = reason is not None and "(oom)" in reason
    else:
        reason = None if value is None else value.reason
        is_oom = value is not None and (value.status == "oom" or "(oom)" in (reason or ""))
    return is_oom and _OF_A_GPU.search(reason or "") is not None
