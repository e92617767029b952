"""What is concluded from how well a rung foretold the next."""

from __future__ import annotations

import math

import pytest

from linearch.agents.foretelling import Verdict, needed_on, verdict_on
from linearch.evaluator.correlation import Correlation, correlate, spearman


def found(value: float | None, low: float | None, high: float | None) -> Correlation:
    return Correlation(value=value, low=low, high=high, n=20, n_effective=20.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.31, 0.9, "ranks"),
        (-0.5, 0.29, "does not rank"),
        (0.1, 0.9, "too few to say"),
        (-1.0, 1.0, "too few to say"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(low: float, high: float, verdict: Verdict) -> None:
    assert verdict_on(found((low + high) / 2, low, high)) == verdict


def test_what_was_not_measured_has_no_verdict() -> None:
    assert verdict_on(found(None, None, None)) is None


def test_what_would_decide_is_more_than_there_are() -> None:
    few = Correlation(value=0.6, low=-0.1, high=0.9, n=10, n_effective=10.0)
    assert needed_on(few) == 34
    spread_out = Correlation(value=0.6, low=0.2, high=0.8, n=60, n_effective=60.0)
    assert needed_on(spread_out) == math.ceil(60 * (0.4 / 0.3) ** 2)
    assert needed_on(found(0.6, 0.4, 0.8)) is None


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ([1, 2, 3, 4], "too few to say"),
        ([1, 2, 4, 3], "too few to say"),
        ([4, 3, 2, 1], "too few to say"),
        (range(8), "ranks"),
        (range(8, 0, -1), "does not rank"),
    ],
)
def test_four_are_too_few_in_whatever_order(second: list[int], verdict: Verdict) -> None:
    assert verdict_on(correlate(spearman, list(range(len(second))), list(second))) == verdict
