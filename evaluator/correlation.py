"""Rank correlations with bootstrap intervals: how well one rung foretells the order of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_FEWEST_PAIRS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """A coefficient over `n` pairs and its percentile interval; None where it is not defined.

    Below some twenty pairs the interval spans most of the scale: show it with the coefficient.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def spearman(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Pearson's correlation of the ranks, ties at their mean; pairs with a None are left out."""
    return _correlate(_spearman, first, second, n_resamples, confidence, seed)


def kendall(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Kendall's tau-b: pairs in agreement minus pairs against, corrected for ties; O(n^2)."""
    return _correlate(_kendall, first, second, n_resamples, confidence, seed)


def mean_ranks(values: Values) -> Values:
    """Ranks from 1; equal values share the mean of the ranks they take up."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def _correlate(
    coefficient: Callable[[Values, Values], float | None],
    first: Sequence[float | None],
    second: Sequence[float | None],
    n_resamples: int,
    confidence: float,
    seed: int,
) -> Correlation:
    x, y = _complete_pairs(first, second)
    n = len(x)
    value = coefficient(x, y) if n >= _FEWEST_PAIRS else None
    if value is None:
        return Correlation(value=None, low=None, high=None, n=n)
    draws = np.random.default_rng(seed).integers(n, size=(n_resamples, n))
    # A resample that draws a single pair over and over has no order to compare and is left out.
    found = [c for draw in draws if (c := coefficient(x[draw], y[draw])) is not None]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if found else (None, None)
    return Correlation(
        value=value,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        n=n,
    )


def _complete_pairs(
    first: Sequence[float | None], second: Sequence[float | None]
) -> tuple[Values, Values]:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values cannot be paired with {len(second)}")
    pairs = np.array([first, second], dtype=np.float64)  # None becomes nan
    x, y = pairs[:, np.isfinite(pairs).all(axis=0)]
    return x, y


def _spearman(x: Values, y: Values) -> float | None:
    x, y = mean_ranks(x), mean_ranks(y)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else None


def _kendall(x: Values, y: Values) -> float | None:
    x_order = np.sign(x[:, None] - x)
    y_order = np.sign(y[:, None] - y)
    scale = np.sqrt(np.abs(x_order).sum() * np.abs(y_order).sum())
    return float((x_order * y_order).sum() / scale) if scale > 0 else None
