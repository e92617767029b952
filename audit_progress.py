"""Shows on standard error that audits go on: a moving line on a terminal, plain lines off it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .tables import printable

Step = Callable[[int, int, str], None]  # how many are done, of how many, and what was done last

_LINES = 20  # how many plain lines a whole gallery gets


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """One thing that takes its time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(printable(what), file=sys.stderr, flush=True)
        yield
        return
    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(printable(what), total=None)
        yield


@contextlib.contextmanager
def counted() -> Iterator[Step]:
    """Many things, one after the other."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_step
        return
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total, description=printable(what)
        )


def _plain_step(done: int, total: int, what: str) -> None:
    if done == total or done % max(1, total // _LINES) == 0:
        print(f"[{done}/{total}] {printable(what)}", file=sys.stderr, flush=True)
