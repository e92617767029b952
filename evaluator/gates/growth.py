"""Exponents over T of what a cost probe counted and timed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .probe import Cost

_WORK = {"elements": "elements read and written", "multiply_adds": "multiply-adds"}
_MEMORY = {"peak_bytes": "bytes alive at the peak"}
# The process's CPU clock stands still while it waits for a core; one that hardly got any shared its
# caches with too many others for even that clock to be trusted.
_TRUSTED_SHARE = 0.5
_SHORTEST_TIMED_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """`counts` at `lengths` grow like T to the `exponent`; of one operator at one place, or all."""

    exponent: float
    phase: str
    what: str
    counts: tuple[float, ...]
    lengths: tuple[int, ...]
    operator: str = ""
    where: str = ""

    def evidence(self) -> dict[str, Any]:
        return {
            "exponent": round(self.exponent, 3) if math.isfinite(self.exponent) else None,
            "phase": self.phase,
            "what": self.what,
            "counts": list(self.counts),
            "at": list(self.lengths),
            "operator": self.operator,
            "where": self.where,
        }


def exponent(short: float, middle: float, long: float) -> float | None:
    """Of a count at T, 2T and 4T: a + b T^e gives e, whatever a is. None if it does not grow.

    Infinite for what starts to grow beyond 2T.
    """
    first, second = middle - short, (long - middle) / 2
    if second <= 0:
        return None
    return 1 + math.log2(second / first) if first > 0 else math.inf


def count_growth(costs: Mapping[int, Cost]) -> Iterator[Growth]:
    """Everything that grew over the last three lengths: totals by phase, then single places.

    A place that was not reached at all three says nothing by itself: its work is in the totals.
    """
    lengths = tuple(sorted(costs))[-3:]
    last = [costs[length] for length in lengths]
    for phase in last[0].phases:
        for field, what in (_WORK | _MEMORY).items():
            counts = tuple(getattr(cost.phases[phase], field) for cost in last)
            if (e := exponent(*counts)) is not None:
                yield Growth(exponent=e, phase=phase, what=what, counts=counts, lengths=lengths)
    for site in last[-1].sites:
        phase, operator, where = site
        if not all(site in cost.sites for cost in last):
            continue
        for field, what in _WORK.items():
            counts = tuple(getattr(cost.sites[site], field) for cost in last)
            e = exponent(*counts)
            if e is not None and math.isfinite(e):
                yield Growth(
                    exponent=e,
                    phase=phase,
                    what=what,
                    counts=counts,
                    lengths=lengths,
                    operator=operator,
                    where=where or "the backward pass",
                )


def hidden_growth(
    costs: Mapping[int, Cost], near: int, far: int, allowance: float
) -> Growth | None:
    """CPU time from `near` to `far` tokens that grows faster than any count explains, or None.

    None as well where nobody can say: no clock, or a machine too busy. Autograd's bookkeeping
    counts as an explanation.
    """
    near_s, far_s = costs[near].cpu_s, costs[far].cpu_s
    if not near_s or far_s is None or far_s < _SHORTEST_TIMED_S:
        return None
    if far_s < _TRUSTED_SHARE * costs[far].wall_s:
        return None
    n_doublings = math.log2(far / near)
    found = math.log2(far_s / near_s) / n_doublings
    explained = _steepest_count(costs[near], costs[far]) / n_doublings
    if found <= explained + allowance:
        return None
    return Growth(
        exponent=found,
        phase="all",
        what="CPU seconds",
        counts=(near_s, far_s),
        lengths=(near, far),
    )


def _steepest_count(near: Cost, far: Cost) -> float:
    """How often the total that grew most doubled."""
    doublings = [0.0]
    for field in ("calls", "elements", "multiply_adds", "bookkeeping"):
        a, b = (sum(getattr(p, field) for p in cost.phases.values()) for cost in (near, far))
        if a > 0 and b > 0:
            doublings.append(math.log2(b / a))
    return max(doublings)


def totals(costs: Mapping[int, Cost]) -> dict[str, Any]:
    """Every total at every length, as evidence."""
    return {
        "lengths": sorted(costs),
        "cpu_s": [costs[length].cpu_s for length in sorted(costs)],
        "wall_s": [costs[length].wall_s for length in sorted(costs)],
        "phases": {
            phase: {
                field: [getattr(costs[length].phases[phase], field) for length in sorted(costs)]
                for field in ("calls", "elements", "multiply_adds", "bookkeeping", "peak_bytes")
            }
            for phase in next(iter(costs.values())).phases
        },
    }
