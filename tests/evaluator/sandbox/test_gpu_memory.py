"""What the driver's lists of processes say of a GPU's memory, with a driver that only says so."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from linearch.evaluator.sandbox import gpu_memory, watchdog
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.gpu_memory import (
    CUDA_CONTEXT_BYTES,
    gpu_memory_bytes,
    gpu_share,
)
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox

COMPUTE = "nvmlDeviceGetComputeRunningProcesses_v3"
MPS = "nvmlDeviceGetMPSComputeRunningProcesses_v3"
NOT_TOLD = (1 << 64) - 1


def listing(**held: int) -> Callable[..., int]:
    """A function of the driver that lists processes `p7=...` with what each holds."""

    def ask(gpu: Any, n_processes: Any, processes: Any) -> int:
        del gpu
        for place, (name, size) in enumerate(held.items()):
            processes[place].pid, processes[place].used_bytes = int(name[1:]), size
        ctypes.cast(n_processes, ctypes.POINTER(ctypes.c_uint))[0] = len(held)
        return 0

    return ask


def refuses(*_: Any) -> int:
    return 3


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ({COMPUTE: listing(p1=5, p2=7, p3=11)}, 12),
        ({COMPUTE: listing(p9=3), MPS: listing(p1=5, p2=7)}, 12),
        ({COMPUTE: listing(p1=5), MPS: listing(p1=5, p2=7)}, 12),  # in both, and counted once
        ({COMPUTE: listing(p1=NOT_TOLD, p2=7), MPS: refuses}, 7),
        ({COMPUTE: listing(p9=3), MPS: listing()}, 0),
        ({COMPUTE: refuses, MPS: refuses}, None),
        ({}, None),
    ],
)
def test_processes_are_found_whether_they_share_the_gpu_or_not(
    functions: dict[str, Any], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory, "_driver", lambda: SimpleNamespace(**functions))
    monkeypatch.setattr(gpu_memory, "_gpus", lambda: (ctypes.c_void_p(),))
    assert gpu_memory_bytes([1, 2]) == expected


@pytest.mark.parametrize(
    ("seen", "claimed", "total", "expected"),
    [
        (16 << 30, 1 << 30, 64 << 30, 0.25),  # the driver's word goes before the process's
        (0, 2 << 30, 64 << 30, 1 / 16),
        (0, None, 64 << 30, None),
        (16 << 30, None, None, None),
        (99 << 30, None, 64 << 30, 1.0),
    ],
)
def test_a_share_is_what_was_seen_or_else_what_was_claimed_with_a_context(
    seen: int, claimed: float | None, total: int | None, expected: float | None
) -> None:
    assert CUDA_CONTEXT_BYTES == 2 << 30
    assert gpu_share(seen, claimed, total) == expected


def test_a_job_may_take_the_share_it_is_given_and_its_peak_is_its_own(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 1 << 30
    monkeypatch.setattr(watchdog, "largest_gpu_bytes", lambda: 100 * gib)
    monkeypatch.setattr(watchdog, "gpu_memory_bytes", lambda _: 30 * gib)
    limits = Limits(wall_s=60, memory_bytes=1024 * MIB, gpu_memory_fraction=0.1)

    def speak() -> None:
        with sandbox.spawn(limits) as child:
            child.call("device")

    sandbox.begin_job(0.3)
    speak()
    speak()
    assert sandbox.peak_gpu_bytes == 30 * gib
    for share in (0.05, None):  # no more than the limits give it
        sandbox.begin_job(share)
        assert sandbox.peak_gpu_bytes == 0
        with pytest.raises(ChildFailed, match="30720 MiB of GPU memory, 12288 are allowed"):
            speak()


def test_a_machine_without_a_gpu_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "_gpus", lambda: ())
    assert gpu_memory_bytes([1]) is None
