"""An operator's first call: the kernels it launches are compiled side by side.

Triton compiles a kernel at its first launch, and the launches after it wait. Here a call ends at a
launch whose kernel this process does not have. In a trial of the same call every launch begins its
compilation in a thread and does no more, and then the call is made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident, local
from typing import Any

import torch
import triton

from .launch_stub import build_launch_stub

# About as many kernels as a pass has; each may start a compiler's three processes, and a sandbox
# allows 32.
_AT_ONCE = 8


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """function(*args), which may be called up to three times and must not change args."""
    before, _this_thread.watches = _this_thread.watches, True
    try:
        return function(*args)
    except _NotCompiled:
        pass
    finally:
        _this_thread.watches = before
    if not torch.cuda.is_current_stream_capturing():  # or the graph would repeat the trial's work
        _compile_launches(partial(function, *args))
    return function(*args)


class _NotCompiled(Exception):
    """A launch of a call that is watched has no kernel yet."""


class _State(local):
    watches = False


_this_thread = _State()
_trial = Lock()


def _compile_launches(trial: Callable[[], Any]) -> None:
    """What fails to compile fails again, with its own error, where it is launched."""
    with (
        _Compilers(min(_AT_ONCE, len(os.sched_getaffinity(0)))) as compilers,
        triton.AsyncCompileMode(compilers, ignore_errors=True),
        _launches_only_compile(),
    ):
        trial()


class _Compilers(ThreadPoolExecutor):
    def submit(self, compile_it: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        return super().submit(lambda: build_launch_stub(compile_it()))


@contextmanager
def _launches_only_compile() -> Iterator[None]:
    """Those of this thread."""
    thread = get_ident()

    def launcher(kernel: Any, grid: Any) -> Any:
        return partial(kernel.run, grid=grid, warmup=get_ident() == thread)

    with _trial:
        launch = triton.JITFunction.__getitem__
        triton.JITFunction.__getitem__ = launcher
        try:
            yield
        finally:
            triton.JITFunction.__getitem__ = launch


def _on_missing_kernel(*args: Any, is_manual_warmup: bool, **kwargs: Any) -> bool | None:
    """Triton's hook, called where a launch finds no kernel in this process; True skips it."""
    if _this_thread.watches and not is_manual_warmup:
        raise _NotCompiled
    if _hook_before is None:
        return None
    return _hook_before(*args, is_manual_warmup=is_manual_warmup, **kwargs)


_hook_before = triton.knobs.runtime.jit_cache_hook
if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6):  # before, no errors are ignored
    triton.knobs.runtime.jit_cache_hook = _on_missing_kernel
