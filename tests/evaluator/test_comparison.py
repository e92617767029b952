"""Differences between architectures: their corrected intervals, and how many seeds would decide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from linearch.evaluator.comparison import SeedNoise, compare, pool_seed_noise, t_quantile

NOISE = SeedNoise(sd=0.03, freedom=4, n_groups=2)


def test_noise_is_pooled_over_groups_with_several_seeds() -> None:
    noise = pool_seed_noise([[1.0, 1.2], [5.0], [2.0, 2.1, 2.2], []])
    assert noise is not None
    assert (noise.freedom, noise.n_groups) == (3, 2)
    assert noise.sd == pytest.approx(((0.02 + 0.02) / 3) ** 0.5)


@pytest.mark.parametrize("groups", [[], [[1.0], [2.0]]])
def test_single_seeds_have_no_noise(groups: list[list[float]]) -> None:
    assert pool_seed_noise(groups) is None


def test_one_comparison_is_students_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(2.5, 0.1, 4).tolist(), rng.normal(2.6, 0.1, 5).tolist()
    noise = pool_seed_noise([first, second])
    assert noise is not None
    found = compare(first, second, noise, n_comparisons=1)
    expected = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_more_are_compared_the_wider_each_interval() -> None:
    one, many = (compare([2.40], [2.54], NOISE, n_comparisons=n) for n in (1, 40))
    assert one.is_better
    assert not many.is_better


def test_among_equals_one_in_twenty_families_holds_a_false_winner() -> None:
    rng = np.random.default_rng(3)
    n_candidates, n_families, false = 10, 1500, 0
    quantile = t_quantile(4, n_candidates)
    for _ in range(n_families):
        baseline = rng.normal(0, 1, 5)
        candidates = rng.normal(0, 1, n_candidates)
        error = baseline.std(ddof=1) * (1 + 1 / 5) ** 0.5
        false += bool((candidates - baseline.mean() < -quantile * error).any())
    assert false / n_families < 0.05


def test_the_seeds_that_would_decide_do_decide() -> None:
    found = compare([2.50], [2.54], NOISE, n_comparisons=8)
    assert not found.is_better
    assert found.seeds_needed is not None
    n = found.seeds_needed
    for seeds, decides in ((n, True), (n - 1, False)):
        noise = SeedNoise(sd=0.03, freedom=max(4, 2 * (seeds - 1)), n_groups=2)
        again = compare([2.50] * seeds, [2.54] * seeds, noise, n_comparisons=8)
        assert again.is_better is decides


def test_pairs_leave_half_the_freedom_so_more_of_them_are_needed() -> None:
    alone, paired = (
        compare([2.50], [2.56], NOISE, n_comparisons=8, is_paired=is_paired).seeds_needed or 0
        for is_paired in (False, True)
    )
    assert paired > alone
    noise = SeedNoise(sd=0.03, freedom=max(4, paired - 1), n_groups=2)
    assert compare([2.50] * paired, [2.56] * paired, noise, n_comparisons=8).is_better


def test_more_seeds_do_not_make_a_worse_one_better() -> None:
    found = compare([2.60], [2.54], NOISE, n_comparisons=1)
    assert found.seeds_needed is None
    assert compare([2.9], [2.54], NOISE, n_comparisons=1).is_worse


def test_a_difference_that_a_thousand_seeds_do_not_decide_gets_no_advice() -> None:
    assert compare([2.5], [2.50001], NOISE, n_comparisons=1).seeds_needed is None
