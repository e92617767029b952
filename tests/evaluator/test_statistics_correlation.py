"""Rank correlations against worked examples and pandas, and what their intervals promise."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from linearch.evaluator.correlation import kendall, mean_ranks, spearman

IQ = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
TV_HOURS = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]


def test_spearman_equals_a_worked_example():
    assert spearman(IQ, TV_HOURS).value == pytest.approx(-29 / 165)


def test_kendall_equals_a_worked_example():
    # No ties: of 45 pairs 20 are in the same order and 25 in the opposite one.
    assert kendall(IQ, TV_HOURS).value == pytest.approx(-5 / 45)


def test_tau_b_corrects_for_ties():
    # Four pairs agree, none disagree, one is tied in each column: 4 / sqrt(5 * 5)
    assert kendall([1, 1, 2, 3], [1, 2, 3, 3]).value == pytest.approx(4 / 5)


def test_equal_values_share_their_mean_rank():
    assert mean_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


def test_spearman_equals_pandas_with_ties_present():
    rows = np.random.default_rng(0).integers(6, size=(2, 40)).astype(float)

    expected = pandas.Series(rows[0]).rank().corr(pandas.Series(rows[1]).rank())

    assert spearman(rows[0].tolist(), rows[1].tolist()).value == pytest.approx(expected)


@pytest.mark.parametrize("correlation", [spearman, kendall])
@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_the_same_order_is_one_and_the_reverse_minus_one(correlation, sign, expected):
    values = [2.6, 2.5, 3.1, 2.9]

    assert correlation(values, [sign * v**3 for v in values]).value == pytest.approx(expected)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_pairs_with_a_missing_number_are_left_out(correlation):
    whole = correlation([1, 3, 2, 5], [2, 3, 1, 7])
    with_gaps = correlation([1, None, 3, 2, 9, 5], [2, 4, 3, 1, None, 7])

    assert with_gaps == whole
    assert whole.n == 4


@pytest.mark.parametrize("correlation", [spearman, kendall])
@pytest.mark.parametrize("first", [[1, 2], [None, None, None], [2, 2, 2]])
def test_without_an_order_there_is_no_coefficient(correlation, first):
    found = correlation(first, list(range(len(first))))

    assert (found.value, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_the_interval_narrows_with_the_number_of_pairs(correlation):
    draw = np.random.default_rng(5)
    x = draw.normal(size=120)
    y = x + draw.normal(size=120)

    few, many = (correlation(x[:n].tolist(), y[:n].tolist(), n_resamples=300) for n in (12, 120))

    assert few.high - few.low > 2 * (many.high - many.low)
    assert many.low < many.value < many.high


def test_intervals_are_the_same_every_time():
    assert spearman(IQ, TV_HOURS) == spearman(IQ, TV_HOURS)


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        spearman([1, 2, 3], [1, 2])
