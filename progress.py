"""Progress of a search on a terminal (one live panel) or off it (plain lines on standard error)."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .agents.progress import Snapshot

_PLAIN_EVERY_S = 10.0


class LiveProgress:
    """A panel that is redrawn in place, with notes scrolling above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, snapshot: Snapshot) -> None:
        self._live.update(_panel(snapshot))

    def note(self, text: str) -> None:
        self._live.console.print(Text(text, style="dim"))


class PlainProgress:
    """One line for every note, and the funnel every few seconds."""

    def __init__(self) -> None:
        self._last_s = -_PLAIN_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed_s - self._last_s >= _PLAIN_EVERY_S:
            self._last_s = snapshot.elapsed_s
            print(_line(snapshot), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def progress_for(console: Console, *, plain: bool) -> LiveProgress | PlainProgress:
    """The live panel where the console is a terminal, plain lines elsewhere."""
    return PlainProgress() if plain or not console.is_terminal else LiveProgress(console)


def duration(seconds: float | None) -> str:
    """`4:05`, `1:02:03`, or a dash where unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _panel(snapshot: Snapshot) -> Panel:
    title = f"run {snapshot.run_id} · {snapshot.phase}"
    body: list[RenderableType] = [_bar(snapshot), Text(_funnel(snapshot)), _best(snapshot)]
    if snapshot.running:
        body.append(Text("now: " + ", ".join(snapshot.running), style="dim", overflow="ellipsis"))
    return Panel(Group(*body), title=title, title_align="left")


def _bar(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(
        total=float(snapshot.candidates_wanted or 1),
        completed=float(snapshot.candidates_done),
        width=30,
    )
    wanted = "∞" if snapshot.candidates_wanted is None else str(snapshot.candidates_wanted)
    count = f"{snapshot.candidates_done}/{wanted} candidates"
    clock = f"{duration(snapshot.elapsed_s)} elapsed, {duration(snapshot.remaining_s)} left"
    cost = f"${snapshot.usd:.2f}" if snapshot.usd else ""
    grid.add_row(bar, count, clock, cost)
    return grid


def _funnel(snapshot: Snapshot) -> str:
    return " · ".join(f"{name} {count}" for name, count in snapshot.funnel.items())


def _best(snapshot: Snapshot) -> RenderableType:
    if not snapshot.best:
        return Text("nothing measured yet", style="dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading, side in (("best so far", "left"), ("by", "left"), ("rung", "right")):
        table.add_column(heading, justify="right" if side == "right" else "left")
    noise = f" ± {snapshot.noise_bpb:.3f}" if snapshot.noise_bpb is not None else ""
    table.add_column(f"val_bpb{noise}", justify="right")
    for row in snapshot.best:
        style = "cyan" if row.origin == "baseline" else ""
        table.add_row(row.name, row.origin, str(row.rung), f"{row.val_bpb:.3f}", style=style)
    return table


def _line(snapshot: Snapshot) -> str:
    best = snapshot.best[0] if snapshot.best else None
    leader = f" · best {best.name} {best.val_bpb:.3f}" if best else ""
    left = f", {duration(snapshot.remaining_s)} left" if snapshot.remaining_s is not None else ""
    return f"[{duration(snapshot.elapsed_s)}{left}] {snapshot.phase}: {_funnel(snapshot)}{leader}"
