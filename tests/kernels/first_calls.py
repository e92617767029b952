"""Run by test_first_call: operators whose launches reach a driver that only writes them down."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
import triton.language as tl
from torch import Tensor

from linearch.kernels.triton import first_call, warm
from linearch.kernels.triton.operators import operator

events: list[str] = []
compiled_by: dict[str, int] = {}
two_at_once = threading.Barrier(2)


class Driver(warm._Target):
    """What Triton asks of one for a GPU that is not there."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 232_448},
        load_binary=lambda *_: (object(), object(), 0, 0, 1024),
    )

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return lambda *_: events.append(metadata.name)


@triton.jit
def doubling(x, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, at < n) * 2, at < n)


@triton.jit
def squaring(x, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < n)
    tl.store(x + at, value * value, at < n)


@triton.jit
def misspelt(x, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(x + tl.arange(0, BLOCK), nothing)  # type: ignore[name-defined]  # noqa: F821


@triton.jit
def filling(x, KIND: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(x + tl.arange(0, BLOCK), tl.full((BLOCK,), 1, KIND[0]))


@operator("test_doubled_and_squared")
def doubled_and_squared(x: Tensor) -> Tensor:
    events.append("called")
    y = x.clone()
    for kernel in (doubling, squaring):
        kernel[(1,)](y, y.numel(), BLOCK=128)
    return y


@operator("test_squared_in_place", mutates_args=("x",))
def squared_in_place(x: Tensor) -> None:
    events.append("called")
    squaring[(1,)](x, x.numel(), BLOCK=128)


@operator("test_misspelt")
def with_a_misspelt_kernel(x: Tensor) -> Tensor:
    misspelt[(1,)](x, x.numel(), BLOCK=128)
    return x.clone()


def seen(function: Callable[..., Any], *args: Any) -> list[str]:
    events.clear()
    function(*args)
    return list(events)


def error_of(function: Callable[..., Any], *args: Any) -> str:
    try:
        function(*args)
    except triton.CompilationError as error:
        return str(error).splitlines()[-1]
    return ""


def launches_of_another_thread(x: Tensor) -> list[str]:
    """While this one's only compile."""
    other = threading.Thread(target=lambda: squaring[(1,)](x, x.numel(), BLOCK=128))
    with first_call._launches_only_compile():
        other.start()
        other.join()
        doubling[(1,)](x, x.numel(), BLOCK=128)
    return list(events)


def note_compilation(*, src: Any, **_: Any) -> None:
    compiled_by[src.fn.__name__] = threading.get_ident()
    two_at_once.wait(timeout=60)


def main() -> None:
    triton.runtime.driver.set_active(Driver(90))
    is_capturing = False
    torch.cuda.is_current_stream_capturing = lambda: is_capturing
    triton.knobs.compilation.listener = note_compilation
    x, narrow = torch.ones(100), torch.ones(100, dtype=torch.bfloat16)
    found: dict[str, Any] = {"first": seen(doubled_and_squared, x)}
    found["threads"] = len(set(compiled_by.values()) - {threading.get_ident()})
    triton.knobs.compilation.listener = None
    found["second"] = seen(doubled_and_squared, x)
    found["changes its argument"] = seen(squared_in_place, narrow)
    found["errors"] = [error_of(with_a_misspelt_kernel, x) for _ in range(2)]
    found["after an error"] = seen(doubled_and_squared, narrow)
    is_capturing = True
    doubling[(1,)](x.double(), 100, BLOCK=128)
    found["in a capture"] = seen(doubled_and_squared, x.double())
    is_capturing = False
    with ThreadPoolExecutor(1) as pool, triton.AsyncCompileMode(pool):
        found["in the caller's mode"] = seen(doubled_and_squared, x.half())
    no_more = RuntimeError("can't start new thread")
    with patch.object(ThreadPoolExecutor, "submit", side_effect=no_more):
        found["without threads"] = seen(doubled_and_squared, x.int())
    # Triton cannot write this argument down for a hook.
    found["outside an operator"] = seen(lambda: filling[(1,)](x, KIND=(tl.float32,), BLOCK=64))
    found["launches again"] = "__getitem__" not in vars(triton.JITFunction)
    found["another thread's"] = seen(launches_of_another_thread, x)[:1]
    found["imported the compiler"] = "torch._dynamo" in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main()
