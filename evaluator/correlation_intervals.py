"""The least that an interval of a rank coefficient may say, by theory, for few architectures.

Resampled pairs repeat each other, so of few pairs in good order all resamples are in good order:
the percentile interval of eight agreeing pairs is a point. These intervals know how few they were.
"""

from __future__ import annotations

import math

Interval = tuple[float, float]

_MOST_NEEDED = 1000  # beyond this a number of architectures is no advice


def effective_number(weights_sum: float, squares_sum: float) -> float:
    """How many equally weighted ones inform as much: (sum w)^2 / sum w^2 (Kish 1965, ch. 11.7)."""
    return weights_sum**2 / squares_sum


def spearman_interval(value: float, n: float, confidence: float) -> Interval:
    """Fisher's z with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000,
    doi:10.1007/BF02294183); everything is possible for three.

    A z of infinity has no width, so a coefficient beyond the largest below one, 1 - 12 / (n^3 - n)
    (two neighbours exchanged), counts as that one.
    """
    if n <= 3:
        return -1.0, 1.0
    largest = 1 - 12 / (n**3 - n)
    return _by_fisher(value, largest, (1 + value**2 / 2) / (n - 3), confidence)


def kendall_interval(value: float, n: float, confidence: float) -> Interval:
    """Fisher's z with the variance 0.437 / (n - 4) of Fieller, Hartley and Pearson (1957,
    doi:10.1093/biomet/44.3-4.470); everything is possible for four. One counts as in
    `spearman_interval`: as two neighbours exchanged, 1 - 4 / (n^2 - n)."""
    if n <= 4:
        return -1.0, 1.0
    return _by_fisher(value, 1 - 4 / (n**2 - n), 0.437 / (n - 4), confidence)


def share_interval(share: float, n: float, confidence: float) -> Interval:
    """The binomial interval of Clopper and Pearson (1934, doi:10.1093/biomet/26.4.404) of a share
    of `n`; halves of one count as such."""
    from scipy import stats

    hits, tail = share * n, (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def architectures_needed(value: float, bar: float, confidence: float = 0.95) -> int | None:
    """The fewest, weighing alike, whose Spearman of `value` would have an interval on one side of
    `bar`; None where a thousand would not do."""
    for n in range(4, _MOST_NEEDED + 1):
        low, high = spearman_interval(value, n, confidence)
        if low > bar or high < bar:
            return n
    return None


def _by_fisher(value: float, largest: float, variance: float, confidence: float) -> Interval:
    from scipy import stats

    z = math.atanh(min(max(value, -largest), largest))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return math.tanh(z - half), math.tanh(z + half)
