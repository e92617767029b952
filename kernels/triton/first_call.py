"""An operator's first call: the kernels it launches are compiled side by side.

Triton compiles a kernel at its first launch, and the launches after it wait. Here a call ends at a
launch whose kernel this process does not have. In a trial of the same call every launch begins its
compilation in a thread and does no more, and then the call is made again. What goes wrong in the
trial's threads is passed over: the launch compiles for itself then, as without all this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from threading import Lock, get_ident, local
from typing import Any

import torch
import triton

from .launch_stub import build_launch_stub

# About as many kernels as a pass has; each may start a compiler's three processes, and a sandbox
# allows 32.
_AT_ONCE = 8


def call(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), which may be called up to three times and must not change args."""
    was_watched, _this_thread.is_watched = _this_thread.is_watched, True
    try:
        return function(*args)
    except _NotCompiled:
        pass
    finally:
        _this_thread.is_watched = was_watched
    # A context of its own: Triton's mode is one of its variables, which the caller may be in, and
    # which an interrupt would leave set (Triton 3.6).
    Context().run(_compile_launches, partial(function, *args))
    return function(*args)


class _NotCompiled(Exception):
    """A launch of a call that is watched has no kernel yet."""


class _State(local):
    is_watched = False


_this_thread = _State()
_trial = Lock()


def _compile_launches(trial: Callable[[], Any]) -> None:
    """Makes a call whose launches compile in threads, and waits for these."""
    with (
        _trial,
        _Compilers(_AT_ONCE) as compilers,
        triton.AsyncCompileMode(compilers, ignore_errors=True),
        _launches_only_compile(),
    ):
        trial()


class _Compilers(ThreadPoolExecutor):
    def submit(self, compile_it: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        try:
            return super().submit(lambda: build_launch_stub(compile_it()))
        except RuntimeError as error:  # no more threads, or the interpreter is shutting down
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed


@contextmanager
def _launches_only_compile() -> Iterator[None]:
    """Launches of this thread begin their compilation and do no more; one thread at a time."""
    thread, kernels = get_ident(), triton.JITFunction
    own = vars(kernels).get("__getitem__")  # None where it is inherited

    def launcher(kernel: Any, grid: Any) -> Any:
        return partial(kernel.run, grid=grid, warmup=get_ident() == thread)

    kernels.__getitem__ = launcher
    try:
        yield
    finally:
        if own is None:
            del kernels.__getitem__
        else:
            kernels.__getitem__ = own


class _MissingKernelHook:
    """Triton's hook, called where a launch finds no kernel in this process."""

    def __init__(self, earlier: Callable[..., Any] | None) -> None:
        self._earlier = earlier

    def __bool__(self) -> bool:
        """Triton writes down a launch's arguments for a hook that is true, and fails at some."""
        return _this_thread.is_watched or self._earlier is not None

    def __call__(self, *args: Any, is_manual_warmup: bool, **kwargs: Any) -> Any:
        # A capture would keep what the call has done so far, and repeat it.
        is_first = _this_thread.is_watched and not is_manual_warmup
        if is_first and not torch.cuda.is_current_stream_capturing():
            raise _NotCompiled
        if self._earlier is None:
            return None
        return self._earlier(*args, is_manual_warmup=is_manual_warmup, **kwargs)


# At import, because Triton has one such hook for all threads of a process. From 3.6 on, as
# AsyncCompileMode knows no `ignore_errors` before.
if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6):
    triton.knobs.runtime.jit_cache_hook = _MissingKernelHook(triton.knobs.runtime.jit_cache_hook)
