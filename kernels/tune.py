"""The search of `linearch bench tune`: kernel by kernel, the best so far is kept.

An alternative replaces today's configuration if its results agree and it is faster by more than
2 %, twice: the fastest of a dozen is often the luckiest. Nothing here touches a GPU; `trial` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .triton.config_table import Config, Launch

LEAST_GAIN = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Of one operation, µs."""

    forward_us: float
    both_us: float  # forward and backward
    kernels_us: Mapping[str, float] = field(default_factory=dict)  # of both; empty on a CPU


# Times with these configurations in the place of today's, or why there are none.
Trial = Callable[["dict[Launch, Config]"], "Times | str"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One row. is_winner: whether it replaces today's, which its kernel's last row says."""

    launch: Launch
    config: Config
    outcome: Times | str
    before: Times | None = None  # a winner's: today's, timed beside it
    is_winner: bool = False


def search(
    kernels: Sequence[tuple[Launch, Config, Sequence[Config]]],  # today's and alternatives
    trial: Trial,
    *,
    by_forward: Callable[[Launch], bool],
) -> Iterator[Tried]:
    """Rows as they are measured; a winner has a second one."""
    kept: dict[Launch, Config] = {}
    for launch, today, others in kernels:

        def run(config: Config, launch: Launch = launch) -> Times | str:
            return trial(kept | {launch: config})

        before = run(today)
        yield Tried(launch=launch, config=today, outcome=before)
        if isinstance(before, str):
            continue
        forward = by_forward(launch)
        best, best_times = today, before
        for config in others:
            outcome = run(config)
            yield Tried(launch=launch, config=config, outcome=outcome)
            if not isinstance(outcome, str) and _gain(best_times, outcome, forward) > 0:
                best, best_times = config, outcome
        if best == today or _gain(before, best_times, forward) <= LEAST_GAIN:
            continue
        before, again = run(today), run(best)
        wins = (
            not isinstance(before, str)
            and not isinstance(again, str)
            and _gain(before, again, forward) > LEAST_GAIN
        )
        if wins:
            kept[launch] = best
        yield Tried(
            launch=launch,
            config=best,
            outcome=again,
            before=before if isinstance(before, Times) else None,
            is_winner=wins,
        )


def _gain(before: Times, after: Times, forward: bool) -> float:
    """The share of time saved; none if a faster forward pass makes both together slower."""
    if not forward:
        return 1 - after.both_us / before.both_us
    return 1 - after.forward_us / before.forward_us if after.both_us <= before.both_us else 0.0
