"""How well one rung foretells the order of the next: weighted rank agreement with its interval.

Only some architectures climb. Those that climbed by their score stand for themselves; one drawn at
random from those that did not stands for all of them, with a weight of one over its chance (Horvitz
and Thompson, 1952). With equal weights the coefficients are scipy's spearmanr and kendalltau.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .correlation_intervals import (
    Interval,
    effective_number,
    kendall_interval,
    share_interval,
    spearman_interval,
)

Values = NDArray[np.float64]
Coefficient = Callable[[Values, Values, Values], float]  # of x, y and weights; nan if undefined

_FEWEST_PAIRS = 3
_TOP_SHARE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """A coefficient over `n` pairs and its interval; None where it is not defined.

    Unequal weights make them inform no more than `n_effective` equal ones. Below some twenty the
    interval spans most of the scale: show it with the coefficient.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_effective: float


def spearman(first: Values, second: Values, weights: Values) -> float:
    """Pearson's correlation of the ranks, ties at their mean."""
    x, y = mean_ranks(first, weights), mean_ranks(second, weights)
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    scale = math.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    return float((weights * x * y).sum() / scale) if scale > 0 else math.nan


def kendall(first: Values, second: Values, weights: Values) -> float:
    """Kendall's tau-b: pairs in agreement minus pairs against, corrected for ties; O(n^2)."""
    pairs = weights[:, None] * weights
    x, y = np.sign(first[:, None] - first), np.sign(second[:, None] - second)
    scale = math.sqrt((pairs * np.abs(x)).sum() * (pairs * np.abs(y)).sum())
    return float((pairs * x * y).sum() / scale) if scale > 0 else math.nan


def top_recall(first: Values, second: Values, weights: Values) -> float:
    """The share of the lowest fifth of `second` that lies in the lowest fifth of `first`.

    One whose weight crosses the border of the fifth belongs to it in part.
    """
    k = top_count(float(weights.sum()))
    both = np.minimum(_share_within(first, weights, k), _share_within(second, weights, k))
    return float((weights * both).sum() / k)


def top_count(n: float) -> int:
    """How many are the best fifth of `n`; at least one."""
    return max(1, round(_TOP_SHARE * n))


def correlate(
    coefficient: Coefficient,
    first: Sequence[float | None],
    second: Sequence[float | None],
    weights: Sequence[float] | None = None,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """`coefficient` over pairs, of which those with a None are left out, and its interval.

    The interval is the wider one, at each end, of two: the middle `confidence` of the coefficients
    of resampled pairs, each keeping its weight, and what theory gives that many pairs at least
    (`correlation_intervals.py`), since resamples of few pairs hardly differ.
    """
    x, y, w = _complete_pairs(first, second, weights)
    n = len(x)
    n_effective = effective_number(float(w.sum()), float((w * w).sum())) if n else 0.0
    value = coefficient(x, y, w) if n >= _FEWEST_PAIRS else math.nan
    if math.isnan(value):
        return Correlation(value=None, low=None, high=None, n=n, n_effective=n_effective)
    resampled = _resampled(coefficient, (x, y, w), n_resamples, seed)
    tail = (1 - confidence) / 2
    lows, highs = zip(
        np.nanquantile(resampled, [tail, 1 - tail]),
        _least_interval(coefficient, value, float(w.sum()), n_effective, confidence),
        (value, value),
        strict=True,
    )
    return Correlation(
        value=value, low=float(min(lows)), high=float(max(highs)), n=n, n_effective=n_effective
    )


def mean_ranks(values: Values, weights: Values) -> Values:
    """Where each value lies in the whole, counted in weight; equal values share their mean rank.

    With weights of one these are the ranks from 1.
    """
    _, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weights)
    below = np.cumsum(mass) - mass
    return np.asarray((below + (mass + 1) / 2)[inverse], dtype=np.float64)


def _resampled(
    coefficient: Coefficient, pairs: tuple[Values, ...], n_resamples: int, seed: int
) -> Values:
    """The coefficient of each resample; nan for those without an order to compare, as when one pair
    is drawn over and over."""
    from scipy import stats  # takes half a second: only those who compute it wait

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of resamples that have no order
        found = stats.bootstrap(
            pairs,
            coefficient,
            paired=True,
            vectorized=False,
            n_resamples=n_resamples,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(found.bootstrap_distribution, dtype=np.float64)


def _least_interval(
    coefficient: Coefficient, value: float, mass: float, n_effective: float, confidence: float
) -> Interval:
    """What `value` may span at least, given how many pairs it rests on."""
    if coefficient is spearman:
        return spearman_interval(value, n_effective, confidence)
    if coefficient is kendall:
        return kendall_interval(value, n_effective, confidence)
    # Of the best fifth, as many as it informs like.
    return share_interval(value, top_count(mass) * n_effective / mass, confidence)


def _share_within(values: Values, weights: Values, k: int) -> Values:
    """How much of each belongs to the `k` lowest, counted in weight: from 0 to 1."""
    order = np.argsort(values, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    shares = np.empty_like(weights)
    shares[order] = np.clip((k - before) / weights[order], 0.0, 1.0)
    return shares


def _complete_pairs(
    first: Sequence[float | None],
    second: Sequence[float | None],
    weights: Sequence[float] | None,
) -> tuple[Values, Values, Values]:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values cannot be paired with {len(second)}")
    given = np.ones(len(first)) if weights is None else np.asarray(weights, dtype=np.float64)
    pairs = np.array([first, second, given], dtype=np.float64)  # None becomes nan
    x, y, w = pairs[:, np.isfinite(pairs).all(axis=0)]
    return x, y, w
