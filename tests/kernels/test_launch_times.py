"""Times of a run's kernels, with launches and events that are made up."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

import torch
from triton import knobs

from linearch.kernels.triton.launch_times import kernels_us


class Launch:
    """As Triton hands one to its hooks: what it holds is made when it is asked for."""

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel

    def get(self) -> dict[str, Any]:
        return {"name": self._kernel}


def test_launches_of_one_kernel_are_added_up_and_hooks_are_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter(range(10_000))

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_ms = next(ticks)

        def elapsed_time(self, end: Event) -> float:
            return end.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def run() -> None:
        for kernel in ("solve_kernel", "sweep_kernel", "sweep_kernel"):
            knobs.runtime.launch_enter_hook(Launch(kernel))
            knobs.runtime.launch_exit_hook(Launch(kernel))

    assert kernels_us(run) == {"solve_kernel": 1000.0, "sweep_kernel": 2000.0}
    run()
    assert next(ticks) == 2 * 3 * 5
