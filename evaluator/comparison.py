"""Whether one architecture is better than another: a difference, its corrected interval, a verdict.

The standard deviation between seeds is pooled over all that were trained with several (one common
deviation is assumed); quantiles are Student's with the pooled degrees of freedom. Of m comparisons
each gets an interval of confidence c^(1/m) (Šidák, 1967), so that all hold together with c.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

_MOST_SEEDS = 1000  # beyond this a number of seeds is no advice


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedNoise:
    """The deviation between seeds, pooled over `n_groups` architectures with several of them."""

    sd: float
    freedom: int
    n_groups: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """`delta` is the first's mean minus the second's; bits per byte, so below zero is better.

    `seeds_needed` is how many seeds each side would need for the difference, were it the true one,
    to lie outside its interval; None where it is not below zero, or over a thousand are needed.
    """

    delta: float
    low: float
    high: float
    n_first: int
    n_second: int
    n_comparisons: int
    seeds_needed: int | None

    @property
    def is_better(self) -> bool:
        return self.high < 0

    @property
    def is_worse(self) -> bool:
        return self.low > 0


def pool_seed_noise(groups: Iterable[Sequence[float]]) -> SeedNoise | None:
    """Pools the deviations within groups of values; None where no group has two."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = math.fsum(
        (value - mean) ** 2 for group in repeated for mean in [fmean(group)] for value in group
    )
    return SeedNoise(sd=math.sqrt(squares / freedom), freedom=freedom, n_groups=len(repeated))


def compare(
    first: Sequence[float],
    second: Sequence[float],
    noise: SeedNoise,
    *,
    n_comparisons: int,
    confidence: float = 0.95,
    is_paired: bool = False,
) -> Comparison:
    """The difference of two means over seeds, corrected for `n_comparisons` made together.

    `is_paired`: the seeds are the same ones and `noise` is that of paired differences, of which n
    seeds leave n - 1 degrees of freedom instead of 2 (n - 1).
    """
    quantile = t_quantile(noise.freedom, n_comparisons, confidence)
    delta = fmean(first) - fmean(second)
    half = quantile * noise.sd * math.sqrt(1 / len(first) + 1 / len(second))
    return Comparison(
        delta=delta,
        low=delta - half,
        high=delta + half,
        n_first=len(first),
        n_second=len(second),
        n_comparisons=n_comparisons,
        seeds_needed=_seeds_needed(delta, noise, n_comparisons, confidence, is_paired),
    )


def t_quantile(freedom: int, n_comparisons: int = 1, confidence: float = 0.95) -> float:
    """How many standard errors a two-sided interval reaches to each side, Šidák-corrected."""
    from scipy import stats

    alone = confidence ** (1 / n_comparisons)
    return float(stats.t.ppf((1 + alone) / 2, freedom))


def _seeds_needed(
    delta: float, noise: SeedNoise, n_comparisons: int, confidence: float, is_paired: bool
) -> int | None:
    """The fewest seeds on either side whose interval would exclude zero; each side's seeds count
    towards the deviation as well, so its degrees of freedom grow with them."""
    if delta >= 0:
        return None
    for n in range(2, _MOST_SEEDS + 1):
        freedom = max(noise.freedom, (1 if is_paired else 2) * (n - 1))
        half = t_quantile(freedom, n_comparisons, confidence) * noise.sd * math.sqrt(2 / n)
        if half < -delta:
            return n
    return None
