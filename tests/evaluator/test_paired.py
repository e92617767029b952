"""Paired differences: what a seed or a window does to both is no noise of their difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from linearch.evaluator.comparison import compare, pool_seed_noise
from linearch.evaluator.paired import in_bits_per_byte, pool_paired_noise, window_difference


def scores(
    *, n: int, seeds: int, shared: float, own: float, seed: int = 0
) -> list[dict[int, float]]:
    """Of `n` architectures; each seed moves all by `shared`, and each alone by `own`."""
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=seeds)
    return [dict(enumerate(2.5 + common + own * rng.normal(size=seeds))) for _ in range(n)]


def test_two_architectures_give_students_paired_test() -> None:
    first, second = scores(n=2, seeds=5, shared=0.1, own=0.01)
    noise = pool_paired_noise([first, second])
    assert noise is not None
    assert noise.freedom == 4
    one, other = list(first.values()), list(second.values())
    found = compare(one, other, noise, n_comparisons=1)
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_what_a_seed_does_to_all_is_no_noise_of_a_paired_difference() -> None:
    made = scores(n=12, seeds=6, shared=0.1, own=0.01)
    paired, unpaired = pool_paired_noise(made), pool_seed_noise([list(g.values()) for g in made])
    assert paired is not None
    assert unpaired is not None
    assert paired.sd == pytest.approx(0.01, rel=0.2)
    assert unpaired.sd > 3 * paired.sd
    assert paired.freedom == (12 - 1) * (6 - 1)


def test_seeds_that_are_missing_cost_freedom_and_nothing_else() -> None:
    made = scores(n=6, seeds=5, shared=0.1, own=0.01)
    gappy = [{s: v for s, v in group.items() if s >= i % 3} for i, group in enumerate(made)]
    noise = pool_paired_noise([*gappy, {0: 9.0}])
    assert noise is not None
    assert noise.freedom == 6 * 5 - (1 + 2) * 2 - (6 + 5 - 1)
    assert noise.sd == pytest.approx(0.01, rel=0.5)


@pytest.mark.parametrize("groups", [[], [{0: 1.0}, {0: 2.0}], [{0: 1.0, 1: 1.1}]])
def test_one_alone_or_one_seed_leaves_nothing_to_tell_it_by(groups: list[dict[int, float]]) -> None:
    assert pool_paired_noise(groups) is None


def test_windows_that_are_hard_for_both_do_not_widen_the_difference() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(2.5, 1.0, size=200)
    better = hard - 0.02 + 0.01 * rng.normal(size=200)
    found = window_difference([better], [hard], n_comparisons=1)
    expected = stats.ttest_rel(better, hard).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.high < 0
    assert window_difference([better], [hard], n_comparisons=40).low < found.low


def test_the_mean_of_the_windows_is_the_score() -> None:
    shares = in_bits_per_byte([100.0, 300.0], 2.4)
    assert shares.tolist() == pytest.approx([1.2, 3.6])
