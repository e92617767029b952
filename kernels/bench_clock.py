"""Times and memory of one run on a device: medians of CUDA graphs, of a GPU's events where a graph
cannot record the run, or of a CPU's process time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

_SECONDS_ON_CPU = 0.5  # for one figure


def run_ms(
    run: Callable[[], None],
    device: torch.device,
    *,
    is_recorded: bool = True,
    replay_ms: int = 50,
) -> float:
    """The median. A CPU's is the process' own time, which others on the machine disturb least.

    is_recorded: as a CUDA graph, else launch by launch, gaps included. replay_ms: about how long
    one of a graph's ten replays takes.
    """
    if device.type != "cuda":
        return _process_ms(run)
    return _replayed_ms(run, replay_ms) if is_recorded else _launched_ms(run)


def _replayed_ms(run: Callable[[], None], replay_ms: int) -> float:
    """Over replays of a graph of several runs, so that gaps between launches do not count."""
    from triton.testing import do_bench_cudagraph  # on a GPU alone

    with torch.cuda.stream(torch.cuda.Stream()):
        run()
        torch.cuda.synchronize()
        middle: float = do_bench_cudagraph(run, rep=replay_ms, return_mode="median")
    return middle


def _launched_ms(run: Callable[[], None]) -> float:
    from triton.testing import do_bench  # on a GPU alone

    middle: float = do_bench(run, return_mode="median")
    return middle


def _process_ms(run: Callable[[], None]) -> float:
    run()
    spent: list[float] = []
    end = time.monotonic() + _SECONDS_ON_CPU
    while time.monotonic() < end or len(spent) < 5:
        start = time.process_time()
        run()
        spent.append(1e3 * (time.process_time() - start))
    return median(spent)


def peak_bytes(run: Callable[[], None], device: torch.device) -> int | None:
    """What a run needs at its peak beyond what was there before; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def memory_bandwidth(device: torch.device) -> float | None:
    """Bytes a ms, read and written, of negating 4 GiB; None on a CPU, where caches decide.

    Not of a copy: in a CUDA graph that is the copy engine's, which reached two thirds of it.
    """
    if device.type != "cuda":
        return None
    x = torch.randn(2**30, device=device)
    y = torch.empty_like(x)

    def negate() -> None:
        torch.neg(x, out=y)

    return 2 * size_bytes(x) / run_ms(negate, device)


def size_bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)
