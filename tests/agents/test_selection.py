"""Non-dominated sorting against brute force; what was not measured never wins."""

from __future__ import annotations

import math
import random
from functools import cache

import pytest

from linearch.agents.objectives import OBJECTIVES, Point, to_point
from linearch.agents.proposers.proposal import Measured
from linearch.agents.selection import (
    best_first,
    choose_parents,
    crowding_distances,
    dominates,
    non_dominated_ranks,
)
from linearch.errors import ConfigError


def random_points(seed: int, n: int = 40, share_missing: float = 0.2) -> list[Point]:
    """Few distinct values, so that ties and duplicates occur."""
    rng = random.Random(seed)
    return [
        tuple(None if rng.random() < share_missing else float(rng.randrange(6)) for _ in range(3))
        for _ in range(n)
    ]


def row(name: str, rung: int | None, first_bpb: float | None, **metrics: float | None) -> Measured:
    return Measured(
        id=name,
        name=name,
        motivation="",
        source="",
        origin="grammar",
        state="measured",
        reason=None,
        genome=None,
        rung=rung,
        metrics=metrics,
        rung_0_val_bpb=first_bpb,
    )


@pytest.mark.parametrize("seed", range(5))
def test_ranks_agree_with_the_longest_chain_of_dominating_points(seed: int) -> None:
    points = random_points(seed)

    @cache
    def depth(point: Point) -> int:
        above = [other for other in points if dominates(other, point)]
        return 1 + max(map(depth, above)) if above else 0

    assert non_dominated_ranks(points) == [depth(point) for point in points]


@pytest.mark.parametrize("seed", range(5))
def test_dominance_is_a_strict_order(seed: int) -> None:
    points = random_points(seed, n=15)
    for one in points:
        assert not dominates(one, one)
        for other in points:
            assert not (dominates(one, other) and dominates(other, one))
            for third in points:
                if dominates(one, other) and dominates(other, third):
                    assert dominates(one, third)


def test_a_point_with_something_missing_loses_to_every_complete_one() -> None:
    assert dominates((9.0, 9.0), (0.0, None))
    assert non_dominated_ranks([(0.0, None), (9.0, 9.0), (None, None)]) == [1, 0, 2]


def test_crowding_is_the_perimeter_around_a_point_and_infinite_at_the_ends() -> None:
    points: list[Point] = [(0.0, 10.0), (1.0, 6.0), (4.0, 5.0), (10.0, 0.0)]
    distances = crowding_distances(points, [0, 0, 0, 0])
    assert distances == [math.inf, pytest.approx(0.4 + 0.5), pytest.approx(0.9 + 0.6), math.inf]


def test_crowding_is_finite_and_zero_where_all_points_are_alike() -> None:
    assert crowding_distances([(1.0, 2.0)] * 3, [0, 0, 0]) == [0.0, 0.0, 0.0]


def test_best_first_puts_ranks_before_crowding() -> None:
    points: list[Point] = [(5.0, 5.0), (0.0, 3.0), (1.0, 2.5), (3.0, 0.0)]
    assert best_first(points) == [1, 3, 2, 0]


def test_the_direction_of_every_objective_is_respected() -> None:
    better = {name: 2.0 if way == "max" else 1.0 for name, way in OBJECTIVES.items()}
    worse = {name: 1.0 if way == "max" else 2.0 for name, way in OBJECTIVES.items()}
    for name in OBJECTIVES:
        assert dominates(to_point(better, [name]), to_point(worse, [name]))


def test_nan_counts_as_not_measured() -> None:
    assert to_point({"val_bpb": math.nan}, ["val_bpb", "state_bytes"]) == (None, None)


def test_an_unknown_objective_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'beauty'; choose from val_bpb"):
        choose_parents([], ["beauty"], 1, random.Random(0))


def test_parents_are_different_and_mostly_good() -> None:
    rows = [row(f"{i}", 1, 3.0, val_bpb=2.0 + 0.1 * i, state_bytes=1.0) for i in range(10)]
    rng = random.Random(0)
    chosen = [choose_parents(rows, ["val_bpb", "state_bytes"], 2, rng) for _ in range(200)]
    assert all(one.id != other.id for one, other in chosen)
    firsts = [int(one.id) for one, _ in chosen]
    assert sum(firsts) / len(firsts) < 3.5  # 4.5 without selection


def test_unmeasured_rows_are_never_parents() -> None:
    rows = [row("sound", None, None), row("measured", 0, 3.0, val_bpb=3.0)]
    parents = choose_parents(rows, ["val_bpb"], 2, random.Random(0))
    assert [parent.id for parent in parents] == ["measured"]


def test_scores_of_different_rungs_are_not_compared() -> None:
    """A score after more training is lower for that alone."""
    long_trained = row("long", 1, 3.5, val_bpb=2.9)
    short_trained = row("short", 0, 3.0, val_bpb=3.0)
    rows = [long_trained, short_trained]
    firsts = [choose_parents(rows, ["val_bpb"], 1, random.Random(i))[0].id for i in range(100)]
    assert firsts.count("short") > firsts.count("long")


def test_with_enough_rows_on_the_highest_rung_the_others_are_left_out() -> None:
    rows = [row(f"top{i}", 1, 3.0, val_bpb=2.5) for i in range(4)]
    rows.append(row("low", 0, 1.0, val_bpb=1.0))
    rng = random.Random(0)
    chosen = {choose_parents(rows, ["val_bpb"], 1, rng)[0].id for _ in range(100)}
    assert "low" not in chosen
