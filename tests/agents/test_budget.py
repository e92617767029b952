"""Budgets name the limit that is met, and forecasts keep a search inside its time."""

from __future__ import annotations

import pytest

from linearch.agents.budget import Budget, Forecast, Spent, makespan_s
from linearch.config import BudgetConfig


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"max_minutes": 1}, "minutes"),
        ({"max_gpu_hours": 0.5}, "GPU-hours"),
        ({"max_usd": 2}, "\\$2"),
    ],
)
def test_a_spent_budget_is_named(limits: dict[str, float], word: str) -> None:
    budget = Budget(BudgetConfig.model_validate(limits))
    assert budget.exhausted(Spent(elapsed_s=59, gpu_s=1799, usd=1.99)) is None
    reason = budget.exhausted(Spent(elapsed_s=60, gpu_s=1800, usd=2.0))
    assert reason is not None
    assert word.replace("\\", "") in reason


def test_time_left_is_unknown_without_a_limit_and_never_negative() -> None:
    spent = Spent(elapsed_s=90, gpu_s=0, usd=0)
    assert Budget(BudgetConfig()).remaining_s(spent) is None
    assert Budget(BudgetConfig(max_minutes=2)).remaining_s(spent) == 30
    assert Budget(BudgetConfig(max_minutes=1)).remaining_s(spent) == 0


def test_a_forecast_is_the_median_of_the_last_of_its_kind() -> None:
    forecast = Forecast()
    assert forecast.expected_s("gates") is None
    forecast.observe("gates", None)
    assert forecast.expected_s("gates") is None
    for wall_s in (1.0, 2.0, 30.0):
        forecast.observe("gates", wall_s)
    assert forecast.expected_s("gates") == 2.0
    for _ in range(5):  # the machine has become slower
        forecast.observe("gates", 4.0)
    assert forecast.expected_s("gates") == 4.0


def test_a_kind_that_has_not_ended_yet_takes_what_others_took_per_token() -> None:
    forecast = Forecast()
    assert forecast.expected_s("rung 1", tokens=300) is None
    for wall_s in (1.0, 2.0, 30.0):
        forecast.observe("rung 0", wall_s, tokens=100)
    assert forecast.expected_s("rung 1", tokens=300) == pytest.approx(6.0)
    assert forecast.expected_s("gates") is None  # which train on nothing
    forecast.observe("rung 1", 4.0, tokens=300)
    assert forecast.expected_s("rung 1", tokens=300) == 4.0


def test_each_job_in_turn_goes_to_the_worker_that_is_free_first() -> None:
    assert makespan_s([0.0, 0.0], []) == 0.0
    assert makespan_s([5.0, 0.0], [4.0]) == 5.0
    assert makespan_s([5.0, 0.0], [4.0, 4.0, 4.0]) == 9.0  # 0-4, 4-8, 5-9
