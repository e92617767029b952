"""What `linearch bench first` times: an operation's first forward and backward pass in a process.

A fresh process first runs a kernel of another operation and a gradient, so that what torch and
Triton set up is not counted as the operation's. Cold: with an empty kernel cache, so that its
kernels are compiled; warm: in another process, for one head more, with the cache that was left.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from . import activation
from .bench import output_of
from .bench_cases import Shape, cases, operation_names

_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
RECURRENCES = ("decay", "delta", "dplr", "oja")
SHAPES: tuple[Shape, ...] = ((8, 2048, 5, 64), (8, 2048, 5, 128))


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstStep:
    """In seconds. setup: of the process before the step, imports of torch not included."""

    operation: str
    shape: Shape
    cold_s: float
    warm_s: float
    cold_setup_s: float
    warm_setup_s: float


class FirstStepFailed(RuntimeError):
    """A process ended before its operation's first step did."""


def measure_first_steps(
    device: torch.device, *, operations: tuple[str, ...] = (), shapes: tuple[Shape, ...] = ()
) -> Iterator[FirstStep]:
    """One at a time. operations: names' beginnings, the recurrences' if empty.

    FirstStepFailed with the last that a process printed.
    """
    for shape in shapes or SHAPES:
        for operation in operation_names(operations or RECURRENCES):
            with tempfile.TemporaryDirectory() as cache:
                cold_setup_s, cold_s = _in_a_process(operation, shape, device, cache)
                B, T, H, K = shape
                warm_setup_s, warm_s = _in_a_process(operation, (B, T, H + 1, K), device, cache)
            yield FirstStep(
                operation=operation,
                shape=shape,
                cold_s=cold_s,
                warm_s=warm_s,
                cold_setup_s=cold_setup_s,
                warm_setup_s=warm_setup_s,
            )


HEADER = f"{'operation':20}{'B, T, H, K':>20}{'cold s':>9}{'warm s':>9}{'setup s':>9}{'setup s':>9}"
LEGEND = (
    "cold: the first step with no kernel compiled. warm: with those compiled for one head less. "
    "setup: of each process before it, a first kernel and gradient."
)


def line(step: FirstStep) -> str:
    shape = ", ".join(str(n) for n in step.shape)
    times = (step.cold_s, step.warm_s, step.cold_setup_s, step.warm_setup_s)
    return f"{step.operation:20}{shape:>20}" + "".join(f"{seconds:9.2f}" for seconds in times)


def _in_a_process(
    operation: str, shape: Shape, device: torch.device, cache: str
) -> tuple[float, float]:
    """Seconds of the setup and of the step."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, operation, json.dumps(shape), device.type],
        env=os.environ | {"TRITON_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FirstStepFailed(
            f"the first step of {operation} at {shape} ended with status {done.returncode}: "
            f"{_last_error(done.stderr)}"
        )
    setup_s, step_s = json.loads(done.stdout.splitlines()[-1])
    return setup_s, step_s


def _last_error(printed: str) -> str:
    """Of a traceback its last line, which others may follow."""
    lines = printed.strip().splitlines() or ["it printed nothing"]
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])


def _time_first_step(operation: str, shape: Shape, device: torch.device) -> tuple[float, float]:
    start = time.perf_counter()
    x = torch.zeros(16, 16, device=device, requires_grad=True)
    y = activation(x, "sigmoid", form="triton")
    torch.autograd.grad(y, x, torch.ones_like(y))
    found = cases(shape, device, (operation,), "triton")
    case = next(case for case in found if case.operation == operation)
    _wait(device)
    set_up = time.perf_counter()
    o = output_of(case.call(form="triton"))
    torch.autograd.grad(o, case.leaves, torch.ones_like(o), allow_unused=True)
    _wait(device)
    return set_up - start, time.perf_counter() - set_up


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    _, wanted, sizes, kind = sys.argv
    print(json.dumps(_time_first_step(wanted, tuple(json.loads(sizes)), torch.device(kind))))
