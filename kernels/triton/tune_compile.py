"""Compiles alternatives for `linearch bench tune`, in parallel and with no GPU (warm.py).

Of an operation's launches only those of the kernel on trial are compiled; the others keep today's.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import triton

from . import warm
from .alternatives import FORWARD
from .config_table import GATES, Config, Launch, trying

_LENGTH = 128  # tokens: lengths are arguments, so that one stands for all


def compile_all(
    arch: int, jobs: int, chosen: Sequence[tuple[Launch, Config]]
) -> Iterator[tuple[Launch, Config, str | None]]:
    """As they are done, with why one could not be compiled or None. arch: 90 for Hopper."""
    spawned = multiprocessing.get_context("spawn")  # a fork would inherit a driver already found
    with ProcessPoolExecutor(
        jobs, mp_context=spawned, initializer=warm.compile_instead_of_launching, initargs=(arch,)
    ) as pool:
        waited = {pool.submit(_compile, *pair): pair for pair in chosen}
        for done in as_completed(waited):
            yield *waited[done], done.result()


def _compile(launch: Launch, config: Config) -> str | None:
    gate = GATES[launch.gate]
    case = warm.Case(
        operation=launch.kernel.split()[0],
        gate=None if gate == "none" else gate,
        dim=launch.key_dim,
        value_dim=launch.value_dim,
        dtype=launch.dtype,
        length=_LENGTH,
    )

    def is_on_trial(kernel: Any, options: dict[str, Any]) -> bool:
        name = launch.kernel.split()[1]
        if kernel.fn.__name__ != f"{name}_kernel":
            return False
        reverse = launch.kernel.endswith("reversed")
        return name != "sweep" or options["REVERSE"] == reverse

    passes = [(True, True), (True, False)]  # with gradients, with states
    passes += [(False, False)] if launch.kernel in FORWARD else []
    try:
        with trying({launch: config}), warm.only(is_on_trial):
            warm.compile_recurrence(case, passes)
    except (RuntimeError, ValueError, triton.TritonError) as error:
        return warm.first_line(error)
    return None
