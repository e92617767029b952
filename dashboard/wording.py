"""How values are said: numbers with their units, times, states. A dash where nothing is known."""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..db import RunRow

BadgeColour: TypeAlias = Literal["blue", "green", "orange", "red", "gray"]

DASH = "–"
CPU_NOTE = (
    "Measured on the CPU profile: minutes of training of tiny models. "
    "It measures early learning, not capacity."
)
STATE_COLOURS: dict[str, BadgeColour] = {
    "running": "blue",
    "finished": "green",
    "interrupted": "orange",
    "failed": "red",
    "proposed": "gray",
    "rejected": "red",
    "sound": "blue",
    "measured": "green",
    "quarantined": "orange",
}
_DEFAULT_STORE = "runs/linearch.db"  # below the current folder
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:])")


def plain(text: str) -> str:
    """Stored text for places that read Markdown: candidates' words are shown, not interpreted."""
    return _MARKUP.sub(r"\\\1", text)


def fixed(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", "−")


def whole(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def interval(low: float | None, high: float | None) -> str | None:
    """`−0.205 … −0.117`, or None where it is not known."""
    return None if low is None or high is None else f"{signed(low)} … {signed(high)}"


def size(n_bytes: float | None) -> str:
    """`1.5 KiB`, `12.0 MiB`."""
    if n_bytes is None:
        return DASH
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} GiB"


def duration(seconds: float | None) -> str:
    """`48 s`, `4 min 47 s`, `3 h 05 min`."""
    if seconds is None:
        return DASH
    whole_s = round(seconds)
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60:02d} s"
    return f"{whole_s // 3600} h {whole_s % 3600 // 60:02d} min"


def local_time(time: datetime) -> datetime:
    """On this machine's clock, without the zone, as tables show it."""
    return time.astimezone().replace(tzinfo=None)


def profile_of(run: RunRow) -> str:
    return str(run.config.get("profile", DASH))


def proposer_of(run: RunRow) -> str:
    return str(run.config.get("proposer", {}).get("kind", DASH))


def run_label(run: RunRow) -> str:
    """One line that tells runs apart in a list."""
    when = f"{local_time(run.created_at):%b %d %H:%M}"
    return f"{run.name or when} · {profile_of(run)} {proposer_of(run)} · {run.state}"


def store_option(location: str) -> str:
    """What a command must be told to find the store of this dashboard."""
    is_default = Path(location).absolute() == Path(_DEFAULT_STORE).absolute()
    return "" if is_default else f" --store {shlex.quote(location)}"


def short(value: Any) -> str:
    """A piece of evidence in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
