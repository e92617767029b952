"""How much of a difference is noise: the spread between seeds, what it resolves, ranks with ties.

Pure functions on numbers; the driver computes with them and stores what they return. A missing
number is None, never wins and is never ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseFloor:
    """The standard deviation `sd` between seeds of one architecture, with its interval.

    With three seeds the 95 % interval runs from 0.52 to 6.3 times `sd`: say so where it is shown.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float


def noise_floor(values: Sequence[float | None], confidence: float = 0.95) -> NoiseFloor | None:
    """The sample deviation of one measurement over seeds; None with fewer than two of them.

    The interval takes the values as normal: (n - 1) sd^2 / sigma^2 is chi-square distributed.
    """
    known = _known(values)
    if len(known) < 2:
        return None
    from scipy import stats  # takes half a second: only those who compute it wait

    mean = math.fsum(known) / len(known)
    freedom = len(known) - 1
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / freedom)
    tail = (1 - confidence) / 2
    low, high = (
        sd * math.sqrt(freedom / float(stats.chi2.ppf(share, freedom)))
        for share in (1 - tail, tail)
    )
    return NoiseFloor(mean=mean, sd=sd, n=len(known), low=low, high=high)


def resolution_bpb(sd: float) -> float:
    """The difference in bits per byte that two single-seed runs can resolve: 2 * sqrt(2) * sd.

    The difference of two runs deviates by sqrt(2) * sd, and two such deviations are exceeded by
    chance about once in twenty pairs of equal architectures.
    """
    return 2 * math.sqrt(2) * sd


def noise_deviations(value: float | None, baseline: float | None, sd: float | None) -> float | None:
    """How many deviations of the noise `value` lies below `baseline`: positive is better (bpb)."""
    if value is None or baseline is None or not sd:
        return None
    return (baseline - value) / sd


def rank_with_ties(
    values: Sequence[float | None], resolution: float | None, *, maximise: bool = False
) -> list[int | None]:
    """Competition ranks (1, 2, 2, 4) in which values too close to tell apart share one.

    From the best on, a value opens a group, and all within `resolution` of that leader belong to
    it; the next value opens another. Measuring from the leader keeps a chain of small steps from
    tying the first with the last. Without a resolution only equal values tie.
    """
    sign = -1.0 if maximise else 1.0
    order = sorted((sign * value, i) for i, value in enumerate(values) if _is_known(value))
    ranks: list[int | None] = [None] * len(values)
    leader, rank = -math.inf, 0
    for n_before, (cost, i) in enumerate(order):
        if cost - leader > (resolution or 0.0):
            leader, rank = cost, n_before + 1
        ranks[i] = rank
    return ranks


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if _is_known(value)]


def _is_known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
