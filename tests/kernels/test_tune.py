"""The search of `linearch bench tune`, with times that are made up."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

import torch

from linearch.bench_tune import kernels_line, line, run_tune
from linearch.errors import ConfigError, PreflightError
from linearch.kernels.triton.config_table import Config, Launch
from linearch.kernels.tune import Times, Trial, Tried, search

PULL = Launch("decay pull", 1, 128, 128, torch.bfloat16)
SWEEP = Launch("decay sweep", 1, 128, 128, torch.bfloat16)
TODAY, SECOND, THIRD = (Config(block_m=64, block_n=64, num_stages=n) for n in (1, 2, 3))
Made = dict[Config, Times | str]


def times(both: float, forward: float = 10.0) -> Times:
    return Times(forward_us=forward, both_us=both)


def from_table(made: Made) -> Trial:
    return lambda configs: made[configs[PULL]]


def winners(made: Made) -> list[Config]:
    rows = search([(PULL, TODAY, [SECOND, THIRD])], from_table(made), by_forward=lambda _: False)
    return [row.config for row in rows if row.is_winner]


def test_the_fastest_that_agrees_wins() -> None:
    assert winners({TODAY: times(100), SECOND: times(90), THIRD: times(80)}) == [THIRD]


def test_a_wrong_one_is_never_chosen_and_a_failing_one_is_skipped() -> None:
    made: Made = {TODAY: times(100), SECOND: "dq is off by 3.0e-1", THIRD: times(90)}
    assert winners(made) == [THIRD]
    assert winners(made | {THIRD: "the process died with exit code -6"}) == []


@pytest.mark.parametrize("both", [100.0, 98.5, 120.0])
def test_what_is_not_faster_by_two_per_cent_keeps_todays(both: float) -> None:
    assert winners({TODAY: times(100), SECOND: times(both), THIRD: times(130)}) == []


def test_a_gain_that_is_not_found_again_does_not_count() -> None:
    asked: list[Config] = []

    def trial(configs: dict[Launch, Config]) -> Times:
        asked.append(configs[PULL])
        return times(80 if configs[PULL] == SECOND and asked.count(SECOND) == 1 else 100)

    rows = list(search([(PULL, TODAY, [SECOND])], trial, by_forward=lambda _: False))
    assert asked == [TODAY, SECOND, TODAY, SECOND]
    assert not any(row.is_winner for row in rows)
    assert "not again" in line(rows[-1])


def test_a_kernel_whose_present_configuration_fails_is_left_alone() -> None:
    made: Made = {TODAY: "state is off by 1.0e-1", SECOND: times(1), THIRD: times(1)}
    rows = list(search([(PULL, TODAY, [SECOND])], from_table(made), by_forward=lambda _: False))
    assert [row.config for row in rows] == [TODAY]


def test_a_later_kernel_is_tried_beside_the_best_of_those_before() -> None:
    asked: list[dict[Launch, Config]] = []

    def trial(configs: dict[Launch, Config]) -> Times:
        asked.append(dict(configs))
        return times(50 if configs.get(PULL) == SECOND else 100)

    kernels = [(PULL, TODAY, [SECOND]), (SWEEP, TODAY, [THIRD])]
    list(search(kernels, trial, by_forward=lambda _: False))
    assert asked[-1] == {PULL: SECOND, SWEEP: THIRD}


def test_a_forward_kernel_is_judged_by_the_forward_pass_but_may_not_slow_both() -> None:
    def chosen(second: Times) -> bool:
        made = {TODAY: times(100, forward=20), SECOND: second}
        rows = search([(PULL, TODAY, [SECOND])], from_table(dict(made)), by_forward=lambda _: True)
        return any(row.is_winner for row in rows)

    assert chosen(times(99.5, forward=18))
    assert not chosen(times(101, forward=18))


def test_a_row_says_what_was_measured_or_why_not() -> None:
    assert "dq is off" in line(Tried(launch=PULL, config=SECOND, outcome="dq is off by 1.0e-1"))
    won = Tried(launch=PULL, config=SECOND, outcome=times(80), before=times(100), is_winner=True)
    assert line(won).endswith("wins: today's 10 and 100")


def test_a_pass_is_broken_down_by_kernel() -> None:
    of_kernels = {"solve_kernel": 812.4, "forward_kernel": 1650.0}
    passes = Times(forward_us=2500.0, both_us=9000.0, kernels_us=of_kernels)
    assert kernels_line(passes) == "solve 812, forward 1650"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so_in_one_sentence() -> None:
    with pytest.raises(PreflightError, match=r"^linearch bench tune needs an NVIDIA GPU"):
        run_tune(operations=[], shapes=[], jobs=None, write=False)


@pytest.mark.parametrize(
    ("shapes", "says"), [(["1,2"], "four sizes"), (["1,64,1,32", "2,64,1,32"], "one K")]
)
def test_shapes_that_cannot_be_tuned_are_refused(shapes: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_tune(operations=[], shapes=shapes, jobs=None, write=False)
