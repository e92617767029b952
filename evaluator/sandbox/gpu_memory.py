"""How much GPU memory processes hold, as the driver tells anyone who asks: NVML through ctypes.

torch's own limit is kept by the process that it limits; this one is seen from outside, by process.
Starts no CUDA. Where the driver numbers processes otherwise, as in some containers, it sees none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from functools import cache
from typing import Any

_MAX_PROCESSES = 1024
# Processes that share a GPU by MPS have a list of their own.
_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)
_NOT_TOLD = (1 << 64) - 1
CUDA_CONTEXT_BYTES = 2048 << 20  # at most, beside what torch's allocator holds


class _ProcessInfo(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def gpu_memory_bytes(pids: Collection[int]) -> int | None:
    """What these processes hold on all GPUs together; None where the driver does not tell."""
    lists = [held for gpu in _gpus() if (held := _held_on(gpu)) is not None]
    if not lists:
        return None
    return sum(size for held in lists for pid, size in held.items() if pid in pids)


def gpu_share(
    seen_bytes: int, claimed_bytes: float | None, total_bytes: int | None
) -> float | None:
    """What a job took of a GPU's memory: the most that the driver told of its processes; where that
    is nothing, what their allocator says of itself, and a context. None where neither is known."""
    if not total_bytes:
        return None
    if not seen_bytes and claimed_bytes:
        seen_bytes = int(min(claimed_bytes, total_bytes)) + CUDA_CONTEXT_BYTES
    return min(1.0, seen_bytes / total_bytes) if seen_bytes else None


def _held_on(gpu: ctypes.c_void_p) -> dict[int, int] | None:
    """Bytes by process, one that is in both lists once; None where the driver tells neither."""
    held: dict[int, int] = {}
    is_told = False
    for name in _LISTS:
        ask = getattr(_driver(), name, None)  # an elder driver has but the first
        n_processes = ctypes.c_uint(_MAX_PROCESSES)
        processes = (_ProcessInfo * _MAX_PROCESSES)()
        if ask is None or ask(gpu, ctypes.byref(n_processes), processes) != 0:
            continue
        is_told = True
        for process in processes[: n_processes.value]:
            if process.used_bytes != _NOT_TOLD:
                held[process.pid] = max(held.get(process.pid, 0), process.used_bytes)
    return held if is_told else None


def largest_gpu_bytes() -> int | None:
    """All memory of the largest GPU; None without one."""
    totals = []
    for gpu in _gpus():
        memory = _Memory()
        if _driver().nvmlDeviceGetMemoryInfo(gpu, ctypes.byref(memory)) == 0:
            totals.append(int(memory.total))
    return max(totals, default=None)


@cache
def _driver() -> Any:
    """NVML, started for good; None where there is no driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


@cache
def _gpus() -> tuple[ctypes.c_void_p, ...]:
    driver = _driver()
    count = ctypes.c_uint(0)
    if driver is None or driver.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return ()
    gpus = tuple(ctypes.c_void_p() for _ in range(count.value))
    for index, gpu in enumerate(gpus):
        driver.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(gpu))
    return gpus
