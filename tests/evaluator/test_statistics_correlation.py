"""Weighted rank agreement against worked examples and scipy, and what its intervals promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from linearch.evaluator.correlation import (
    Coefficient,
    correlate,
    kendall,
    mean_ranks,
    spearman,
    top_recall,
)

IQ = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
TV_HOURS = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
BOTH = pytest.mark.parametrize("coefficient", [spearman, kendall])


def draws(*, n: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    """A cheap and a dear score of the same architectures."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n)
    return true + noise * rng.normal(size=n), true + 0.1 * rng.normal(size=n)


def test_spearman_equals_a_worked_example() -> None:
    assert correlate(spearman, IQ, TV_HOURS).value == pytest.approx(-29 / 165)


def test_kendall_equals_a_worked_example() -> None:
    # No ties: of 45 pairs 20 are in the same order and 25 in the opposite one.
    assert correlate(kendall, IQ, TV_HOURS).value == pytest.approx(-5 / 45)


def test_tau_b_corrects_for_ties() -> None:
    # Four pairs agree, none disagree, one is tied in each column: 4 / sqrt(5 * 5)
    assert correlate(kendall, [1, 1, 2, 3], [1, 2, 3, 3]).value == pytest.approx(4 / 5)


def test_equal_values_share_their_mean_rank() -> None:
    assert mean_ranks(np.array([3.0, 1.0, 3.0, 2.0]), np.ones(4)).tolist() == [3.5, 1, 3.5, 2]


@pytest.mark.parametrize(
    ("coefficient", "published"), [(spearman, stats.spearmanr), (kendall, stats.kendalltau)]
)
def test_a_weight_counts_as_that_many_copies(coefficient: Coefficient, published: object) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(6, size=(2, 15)).astype(float)
    copies = rng.integers(1, 5, size=15)
    expected = published(np.repeat(x, copies), np.repeat(y, copies)).statistic  # type: ignore[operator]
    assert coefficient(x, y, copies.astype(float)) == pytest.approx(expected)


@BOTH
@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_the_same_order_is_one_and_the_reverse_minus_one(
    coefficient: Coefficient, sign: int, expected: float
) -> None:
    values = [2.6, 2.5, 3.1, 2.9]
    found = correlate(coefficient, values, [sign * v**3 for v in values])
    assert found.value == pytest.approx(expected)


@BOTH
def test_pairs_with_a_missing_number_are_left_out(coefficient: Coefficient) -> None:
    whole = correlate(coefficient, [1, 3, 2, 5], [2, 3, 1, 7])
    with_gaps = correlate(coefficient, [1, None, 3, 2, 9, 5], [2, 4, 3, 1, None, 7])
    assert with_gaps == whole
    assert whole.n == 4


@BOTH
@pytest.mark.parametrize("first", [[1, 2], [None, None, None], [2, 2, 2]])
def test_without_an_order_there_is_no_coefficient(
    coefficient: Coefficient, first: list[float | None]
) -> None:
    found = correlate(coefficient, first, list(range(len(first))))
    assert (found.value, found.low, found.high) == (None, None, None)


@BOTH
def test_the_interval_narrows_with_the_number_of_pairs(coefficient: Coefficient) -> None:
    x, y = draws(n=120, noise=1.0, seed=5)
    few, many = (
        correlate(coefficient, x[:n].tolist(), y[:n].tolist(), n_resamples=200) for n in (12, 120)
    )
    numbers = (few.low, few.high, many.low, many.value, many.high)
    few_low, few_high, many_low, many_value, many_high = (number or 0.0 for number in numbers)
    assert few_high - few_low > 2 * (many_high - many_low) > 0
    assert many_low < many_value < many_high


def test_the_lot_undoes_what_pruning_does_to_the_coefficient() -> None:
    """Among survivors alone the ranking looks worse than it is; the weighted lot mends that."""
    whole, survivors, weighted = [], [], []
    for seed in range(60):
        x, y = draws(n=200, noise=0.7, seed=seed)
        order = np.argsort(x)
        kept, pruned = order[:60], order[60:]
        lot = np.random.default_rng(seed).choice(pruned, size=14, replace=False)
        sample = np.concatenate([kept, lot])
        weights = np.concatenate([np.ones(60), np.full(14, len(pruned) / 14)])
        whole.append(spearman(x, y, np.ones(200)))
        survivors.append(spearman(x[kept], y[kept], np.ones(60)))
        weighted.append(spearman(x[sample], y[sample], weights))
    assert np.mean(survivors) < np.mean(whole) - 0.2
    assert np.mean(weighted) == pytest.approx(np.mean(whole), abs=0.03)


def test_top_recall_is_the_share_of_the_best_that_was_seen_coming() -> None:
    cheap = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    dear = np.array([1.0, 9, 2, 4, 5, 6, 7, 8, 3, 10])  # the best two are at cheap places 1 and 3
    assert top_recall(cheap, dear, np.ones(10)) == pytest.approx(0.5)
    assert top_recall(cheap, cheap, np.ones(10)) == pytest.approx(1.0)


def test_one_that_stands_for_many_can_fill_the_best_fifth_alone() -> None:
    cheap, dear = np.array([1.0, 2, 3]), np.array([2.0, 3, 1])
    weights = np.array([1.0, 1, 8])  # the third, best at last, was drawn from eight pruned
    assert top_recall(cheap, dear, weights) == pytest.approx(0.0)


def test_intervals_are_the_same_every_time() -> None:
    assert correlate(spearman, IQ, TV_HOURS) == correlate(spearman, IQ, TV_HOURS)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        correlate(spearman, [1, 2, 3], [1, 2])


def test_a_coefficient_of_equal_values_is_not_a_number() -> None:
    assert math.isnan(spearman(np.ones(4), np.arange(4.0), np.ones(4)))
