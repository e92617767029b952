"""Audits many sources: in this process one after the other, or in several processes at once.

Processes and not threads: Python 3.11 cannot parse two sources in two threads at a time.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from ..config import RunConfig
from ..errors import PreflightError
from ..evaluator.audit import Audit, audit_source
from .preflight import cache_folder

if TYPE_CHECKING:
    from ..evaluator import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One source; `place` is the caller's own."""

    place: int
    name: str
    source: str


def audits(
    jobs: Sequence[Job], config: RunConfig, *, device: str, workers: int
) -> Generator[tuple[int, Audit | PreflightError], None, None]:
    """By place, in the order in which they end: the audit, or why the machinery failed on it.

    Raises PreflightError if it failed altogether.
    """
    if workers == 1:
        judge = _judge(config, device)
        with judge:
            for job in jobs:
                yield job.place, _audit(judge, job, config.profile, device)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (config, device)) as pool:
        futures = {pool.submit(_audit_here, job): job.place for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise PreflightError(
                "A process that audits was killed, as the kernel does when memory runs out; "
                "try again with fewer --workers."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _judge(config: RunConfig, device: str) -> Judge:
    from ..evaluator import Judge  # loads torch

    return Judge(config, device=device, folder=cache_folder())


def _audit(judge: Judge, job: Job, profile: str, device: str) -> Audit | PreflightError:
    try:
        return audit_source(judge, job.source, name=job.name, device=device, profile=profile)
    except PreflightError as error:
        return error


# What a worker's process holds between its jobs.
_mine: dict[str, tuple[Judge, str, str]] = {}


def _start(config: RunConfig, device: str) -> None:
    """In a worker's process, before its first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    judge = _judge(config, device)
    Finalize(None, judge.close, exitpriority=1)
    _mine["judge"] = (judge, config.profile, device)


def _audit_here(job: Job) -> Audit | PreflightError:
    judge, profile, device = _mine["judge"]
    return _audit(judge, job, profile, device)
