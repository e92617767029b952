"""One configuration on the GPU: its results and times, in a process that may die of it.

An illegal access ends a process' use of the GPU. The next trial then gets a new process.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from .bench_cases import Case, Shape, cases
from .bench_clock import run_ms
from .triton.config_table import Config, Launch, trying
from .triton.launch_times import kernels_us
from .tune import Times
from .tune_check import GRADIENT_ERROR, disagreement, relative_error

_LIMIT_S = 120.0  # of one trial, the start of a process and its first compilations included
# At the large shape two results are compared that may each be off by this much.
_ERROR = 2 * GRADIENT_ERROR
_REPLAY_MS = 20  # ten of them a figure, two figures a trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is run: chunk_decay, chunk_delta or chunk_dplr with a gate."""

    operation: str
    gate: str
    shape: Shape
    device: str = "cuda"


class Trials:
    """A search's trials of one problem. Use it in a `with`, which ends its process."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, configs: dict[Launch, Config]) -> Times | str:
        pipe = self._started()
        try:
            pipe.send(configs)
            if not pipe.poll(_LIMIT_S):
                self._end()
                return f"no result after {_LIMIT_S:.0f} s"
            outcome, is_alive = pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            died, self._process = self._process.exitcode, None
            return f"the process died with exit code {died}"
        if not is_alive:
            self._end()
        return outcome  # type: ignore[no-any-return]

    def _started(self) -> Connection:
        if self._process is None or self._pipe is None:
            spawned = multiprocessing.get_context("spawn")
            self._pipe, childs = spawned.Pipe()
            self._process = spawned.Process(
                target=_answer, args=(childs, self._problem), daemon=True
            )
            self._process.start()
            childs.close()
        return self._pipe

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _answer(pipe: Connection, problem: Problem) -> None:
    """The process: configurations in, times or a reason out, until the GPU fails it."""
    import triton

    from .triton.warm import first_line

    while True:
        configs = pipe.recv()
        try:
            _before(problem)
            with trying(configs):
                wrong = _wrong(problem)
                outcome = _times(problem) if wrong is None else wrong
            pipe.send((outcome, True))
        except triton.runtime.errors.OutOfResources as error:
            pipe.send((first_line(error), True))
        except (RuntimeError, ValueError, triton.TritonError) as error:
            pipe.send((first_line(error), False))
            return


def _wrong(problem: Problem) -> str | None:
    found = disagreement(problem.operation, problem.gate, problem.shape[3], problem.device)
    if found is not None:
        return found
    for i, (got, wanted) in enumerate(zip(_large(problem), _before(problem), strict=True)):
        error = relative_error(got, wanted)
        if not error < _ERROR:  # also not a number
            return f"result {i} at the large shape is off by {error:.1e} from today's"
    return None


@cache
def _case(problem: Problem) -> tuple[Case, Tensor]:
    """And the output's gradient."""
    torch.manual_seed(0)
    name = f"{problem.operation} {problem.gate}"
    case = next(iter(cases(problem.shape, torch.device(problem.device), (name,), "triton")))
    return case, torch.randn_like(case.leaves[2])


@cache
def _before(problem: Problem) -> list[Tensor]:
    """Of today's configurations: first called with none on trial."""
    return _large(problem)


def _large(problem: Problem) -> list[Tensor]:
    case, grad = _case(problem)
    with torch.no_grad():
        without_grad = case.call(form="triton")  # another compilation: nothing is kept
    o, state = case.call(form="triton")
    return [*without_grad, o.detach(), state.detach(), *torch.autograd.grad(o, case.leaves, grad)]


def _times(problem: Problem) -> Times:
    case, grad = _case(problem)

    def forward() -> None:
        with torch.no_grad():
            case.call(form="triton")

    def both() -> None:
        torch.autograd.grad(case.call(form="triton")[0], case.leaves, grad)

    device = torch.device(problem.device)
    forward_ms, both_ms = (run_ms(run, device, replay_ms=_REPLAY_MS) for run in (forward, both))
    of_kernels = kernels_us(both) if device.type == "cuda" else {}
    return Times(forward_us=1e3 * forward_ms, both_us=1e3 * both_ms, kernels_us=of_kernels)
