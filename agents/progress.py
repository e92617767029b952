"""What a search tells whoever watches it: snapshots of the funnel, and single notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One line of the live table."""

    name: str
    origin: str
    rung: int
    val_bpb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The state of a search at one moment; unknown times are None."""

    run_id: str
    phase: str  # "baselines", "searching", "recall", "draining", "finished", ...
    elapsed_s: float
    remaining_s: float | None
    candidates_done: int
    candidates_wanted: int | None
    funnel: dict[str, int] = field(default_factory=dict)
    running: tuple[str, ...] = ()
    best: tuple[Standing, ...] = ()
    noise_bpb: float | None = None
    usd: float = 0.0


class Observer(Protocol):
    """Shows progress; must return quickly, since the loop waits for it."""

    def update(self, snapshot: Snapshot) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Shows nothing."""

    def update(self, snapshot: Snapshot) -> None:
        del snapshot

    def note(self, text: str) -> None:
        del text
