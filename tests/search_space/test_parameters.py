"""The MLP's width brings a model to its budget, or the candidate is rejected."""

from __future__ import annotations

import pytest
from torch import nn

from linearch.errors import CandidateRejected
from linearch.search_space import count_parameters, match_mlp_width


def test_the_nearest_width_is_found_in_two_counts() -> None:
    asked = []

    def count(width: int) -> int:
        asked.append(width)
        return 50_000 + 384 * width

    width = match_mlp_width(count, budget=120_000, tolerance=0.02)
    assert width == round(70_000 / 384)
    assert len(asked) == 2


def test_a_multiple_is_taken_where_it_is_near_enough() -> None:
    def width(budget: int, multiple: int) -> int:
        return match_mlp_width(lambda w: 50_000 + 384 * w, budget, 0.02, multiple=multiple)

    assert width(120_000, multiple=4) == 184  # 182 alone
    assert width(120_000, multiple=100) == 182


def test_a_mixer_that_is_too_large_is_rejected_with_the_excess() -> None:
    with pytest.raises(CandidateRejected, match="smaller by about 33,072 in all") as rejected:
        match_mlp_width(lambda width: 150_000 + 384 * width, budget=120_000, tolerance=0.02)
    assert rejected.value.check == "parameters"


def test_a_step_coarser_than_the_tolerance_is_rejected() -> None:
    with pytest.raises(CandidateRejected, match="the nearest total is 1,290"):
        match_mlp_width(lambda width: 90 + 120 * width, budget=1_250, tolerance=0.02)


def test_counts_that_do_not_grow_are_rejected() -> None:
    with pytest.raises(CandidateRejected, match="do not grow with its MLP"):
        match_mlp_width(lambda width: 120_000, budget=120_000, tolerance=0.02)


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    second.weight = first.weight
    assert count_parameters(nn.ModuleList([first, second])) == 12
