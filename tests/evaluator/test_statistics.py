"""The noise floor, what it resolves, and ranks with ties."""

from __future__ import annotations

import itertools
import math
import random
import statistics as standard

import pytest

from linearch.evaluator.statistics import (
    noise_deviations,
    noise_floor,
    rank_with_ties,
    resolution_bpb,
)


def test_the_noise_floor_is_the_sample_deviation_with_its_interval():
    values = [2.50, 2.54, 2.61]

    floor = noise_floor(values)

    assert floor.n == 3
    assert floor.mean == pytest.approx(standard.mean(values))
    assert floor.sd == pytest.approx(standard.stdev(values))
    assert floor.low == pytest.approx(0.52066 * floor.sd, rel=1e-4)
    assert floor.high == pytest.approx(6.28470 * floor.sd, rel=1e-4)


def test_the_interval_holds_the_true_deviation_as_often_as_it_says():
    draw = random.Random(0)
    floors = [noise_floor([draw.gauss(5, 2) for _ in range(4)]) for _ in range(1000)]

    covered = sum(floor.low <= 2 <= floor.high for floor in floors) / len(floors)

    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("values", [[], [2.5], [2.5, None], [2.5, math.nan]])
def test_one_measurement_has_no_noise_floor(values):
    assert noise_floor(values) is None


def test_missing_seeds_do_not_count_as_zero():
    assert noise_floor([2.5, None, 2.7]) == noise_floor([2.5, 2.7])


def test_equal_architectures_exceed_the_resolution_about_once_in_twenty():
    draw = random.Random(1)
    pairs = [(draw.gauss(2.5, 0.05), draw.gauss(2.5, 0.05)) for _ in range(5000)]

    exceeded = sum(abs(a - b) > resolution_bpb(0.05) for a, b in pairs) / len(pairs)

    assert 0.035 < exceeded < 0.06


def test_fewer_bits_are_positive_deviations():
    assert noise_deviations(2.4, baseline=2.5, sd=0.05) == pytest.approx(2)
    assert noise_deviations(2.6, baseline=2.5, sd=0.05) == pytest.approx(-2)


@pytest.mark.parametrize(
    ("value", "baseline", "sd"), [(None, 2.5, 0.1), (2.5, None, 0.1), (2.5, 2.5, None), (2, 3, 0)]
)
def test_without_a_number_there_are_no_deviations(value, baseline, sd):
    assert noise_deviations(value, baseline, sd) is None


def test_rows_within_the_resolution_of_their_leader_share_its_rank():
    values = [2.70, 2.50, 2.58, 2.66, 3.10]

    assert rank_with_ties(values, resolution=0.1) == [3, 1, 1, 3, 5]


def test_a_chain_of_small_steps_does_not_tie_the_first_with_the_last():
    values = [1.0 + 0.05 * i for i in range(6)]

    ranks = rank_with_ties(values, resolution=0.06)

    assert ranks == [1, 1, 3, 3, 5, 5]


def test_missing_values_are_unranked_and_push_no_one_down():
    assert rank_with_ties([None, 2.0, math.nan, 1.0], resolution=0.1) == [None, 2, None, 1]


def test_without_a_resolution_only_equal_values_tie():
    assert rank_with_ties([2.0, 1.0, 2.0, 2.1], resolution=None) == [2, 1, 2, 4]


def test_the_largest_ranks_first_when_maximising():
    assert rank_with_ties([0.2, 0.9, 0.85], resolution=0.1, maximise=True) == [3, 1, 1]


def test_ranks_follow_the_values_in_any_order():
    values = [1.0, 1.3, 1.35, 2.0]
    by_value = dict(zip(values, rank_with_ties(values, resolution=0.1), strict=True))

    for shuffled in itertools.permutations(values):
        assert rank_with_ties(shuffled, resolution=0.1) == [by_value[v] for v in shuffled]
