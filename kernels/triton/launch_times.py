"""What each kernel of a run takes on a GPU: events around Triton's launches.

Nothing is known of torch's own kernels. A launch's time includes the gap before it where the GPU
waits for the CPU, so it is right for kernels that are much longer than a launch takes.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from triton import knobs

_RUNS = 5

_Launch = tuple[str, torch.cuda.Event, torch.cuda.Event]  # kernel, before, after


def kernels_us(run: Callable[[], None]) -> dict[str, float]:
    """By kernel, all its launches of one run together; medians, in the order of the launches."""
    runs: list[list[_Launch]] = []

    def before(launch: Any) -> None:
        events = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        runs[-1].append((launch.get()["name"], *events))
        runs[-1][-1][1].record()

    def after(_: Any) -> None:
        runs[-1][-1][2].record()

    run()  # compiled, and the GPU busy when the first launch that counts is made
    knobs.runtime.launch_enter_hook.add(before)
    knobs.runtime.launch_exit_hook.add(after)
    try:
        for _ in range(_RUNS):
            runs.append([])
            run()
    finally:
        knobs.runtime.launch_enter_hook.remove(before)
        knobs.runtime.launch_exit_hook.remove(after)
    torch.cuda.synchronize()
    sums = [_by_kernel(launches) for launches in runs]
    return {kernel: median(of_run[kernel] for of_run in sums) for kernel in sums[0]}


def _by_kernel(launches: list[_Launch]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for kernel, start, end in launches:
        sums[kernel] = sums.get(kernel, 0.0) + 1e3 * start.elapsed_time(end)
    return sums
