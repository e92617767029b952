"""How fast several small trainings run on one device at once, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LinearchError
from ..kernels.forms import Form
from .train_bench import Speed, measure

_START_S = 240.0  # a process loads torch, brings CUDA up and compiles
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """`n_processes` equal trainings in the same seconds; `tokens_per_s` is their sum."""

    size: str
    model: str
    n_processes: int
    shares_gpu: bool  # under MPS; else they take turns
    is_graph: bool
    tokens_per_s: float


def measure_packed(
    baseline: str,
    size: str,
    device: torch.device,
    n_processes: int,
    *,
    seconds: float,
    records: bool = True,
    form: Form | None = None,
    mps: Mapping[str, str] | None = None,
) -> Packed:
    """Starts the processes and lets them train at once; `mps` are MPS's variables.

    Raises LinearchError if one of them fails, which has printed why.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    barrier = context.Barrier(n_processes)
    arguments = (baseline, size, device.type, seconds, records, form, barrier, results)
    processes = [context.Process(target=_train, args=arguments) for _ in range(n_processes)]
    with _environment(mps or {}):
        for process in processes:
            process.start()
    try:
        speeds = _collect(processes, results, _START_S + seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return Packed(
        size=size,
        model=baseline,
        n_processes=n_processes,
        shares_gpu=mps is not None,
        is_graph=all(speed.is_graph for speed in speeds),
        tokens_per_s=sum(speed.tokens_per_s for speed in speeds),
    )


def _train(
    baseline: str,
    size: str,
    device: str,
    seconds: float,
    records: bool,
    form: Form | None,
    barrier: threading.Barrier,
    results: Any,
) -> None:
    torch.set_num_threads(1)
    speed = measure(
        baseline,
        size,
        torch.device(device),
        seconds=seconds,
        records=records,
        form=form,
        start=barrier.wait,
    )
    results.put(speed)


def _collect(processes: list[Any], results: Any, timeout_s: float) -> list[Speed]:
    speeds: list[Speed] = []
    waited_s = 0.0
    while len(speeds) < len(processes):
        try:
            speeds.append(results.get(timeout=_POLL_S))
        except queue.Empty:
            waited_s += _POLL_S
            gone = [process for process in processes if process.exitcode]
            if gone or waited_s > timeout_s:
                why = f"exit code {gone[0].exitcode}" if gone else f"no answer in {timeout_s:g} s"
                raise LinearchError(f"A training of the benchmark failed ({why}).") from None
    return speeds


@contextmanager
def _environment(variables: Mapping[str, str]) -> Any:
    """Seen by the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
