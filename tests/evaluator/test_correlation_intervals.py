"""Intervals of rank coefficients for few architectures: as wide as few are unsure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from linearch.evaluator.correlation import Correlation, correlate, kendall, spearman, top_recall
from linearch.evaluator.correlation_intervals import (
    architectures_needed,
    effective_number,
    kendall_interval,
    share_interval,
    spearman_interval,
)


def in_order(n: int, weights: list[float] | None = None) -> Correlation:
    return correlate(spearman, list(range(n)), list(range(n)), weights, n_resamples=100)


def ends(found: Correlation) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


@pytest.mark.parametrize(("n", "low"), [(3, -1.0), (4, -0.86), (5, -0.22), (6, 0.36), (8, 0.81)])
def test_a_perfect_order_of_few_is_not_sure(n: int, low: float) -> None:
    assert ends(in_order(n)) == (pytest.approx(low, abs=0.01), 1.0)


def test_a_perfect_order_of_many_is_nearly_sure() -> None:
    low, high = ends(in_order(40))
    assert (low > 0.98, high) == (True, 1.0)


@pytest.mark.parametrize("coefficient", [spearman, kendall, top_recall])
def test_no_interval_of_eight_in_perfect_order_is_a_point(
    coefficient: Callable[..., float],
) -> None:
    low, high = ends(correlate(coefficient, list(range(8)), list(range(8)), n_resamples=100))
    assert high == 1.0
    assert low < 0.85


@pytest.mark.parametrize(
    ("interval", "rank", "truth"),
    [
        (spearman_interval, stats.spearmanr, lambda rho: 6 / math.pi * math.asin(rho / 2)),
        (kendall_interval, stats.kendalltau, lambda rho: 2 / math.pi * math.asin(rho)),
    ],
)
@pytest.mark.parametrize(("n", "rho"), [(5, 0.3), (8, 0.6), (20, 0.6), (20, 0.9)])
def test_nineteen_of_twenty_intervals_hold_the_true_coefficient(
    interval: Callable[..., tuple[float, float]],
    rank: Callable[..., object],
    truth: Callable[[float], float],
    n: int,
    rho: float,
) -> None:
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(400):
        x = rng.normal(size=n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
        low, high = interval(rank(x, y).statistic, n, 0.95)  # type: ignore[attr-defined]
        held += low <= truth(rho) <= high
    assert held / 400 > 0.92


def test_the_wider_of_theory_and_resamples_holds_where_theory_alone_does_not() -> None:
    rng, truth = np.random.default_rng(0), 2 / math.pi * math.asin(0.97)
    by_theory = by_both = 0
    for _ in range(100):
        x = rng.normal(size=12)
        y = 0.97 * x + math.sqrt(1 - 0.97**2) * rng.normal(size=12)
        found = correlate(kendall, x.tolist(), y.tolist(), n_resamples=100)
        low, high = kendall_interval(found.value or 0.0, 12, 0.95)
        by_theory += low <= truth <= high
        by_both += ends(found)[0] <= truth <= ends(found)[1]
    assert by_theory < 90 < by_both


def test_one_that_stands_for_many_makes_the_others_count_for_less() -> None:
    assert effective_number(12.0, 12.0) == 12
    assert effective_number(8 + 6, 8 + 36) == pytest.approx(4.45, abs=0.01)
    alike, by_lot = in_order(9), in_order(9, [*[1.0] * 8, 6.0])
    assert (alike.n, by_lot.n) == (9, 9)
    assert ends(alike)[0] > 0.8
    assert ends(by_lot)[0] < 0.0


def test_a_share_has_the_binomial_interval() -> None:
    expected = stats.binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert share_interval(0.75, 4, 0.95) == pytest.approx((expected.low, expected.high))
    assert share_interval(1.0, 1, 0.95) == pytest.approx((0.025, 1.0))
    assert share_interval(0.0, 2, 0.95)[0] == 0.0


@pytest.mark.parametrize(("value", "bar"), [(0.8, 0.3), (-0.2, 0.3)])
def test_the_number_that_would_decide_does_and_one_fewer_does_not(value: float, bar: float) -> None:
    n = architectures_needed(value, bar)
    assert n is not None
    for count, decides in ((n, True), (n - 1, False)):
        low, high = spearman_interval(value, count, 0.95)
        assert (low > bar or high < bar) is decides


def test_at_the_bar_no_number_decides() -> None:
    assert architectures_needed(0.3, 0.3) is None
