"""Budgets name the limit that is met, and forecasts keep a search inside its time."""

from __future__ import annotations

import pytest

from linearch.agents.budget import Budget, Forecast, Spent
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


def test_a_forecast_is_the_median_per_token_and_unknown_before_the_first_trial() -> None:
    forecast = Forecast()
    forecast.observe(100, None)
    assert forecast.expected_s(10) is None
    for wall_s in (1.0, 2.0, 30.0):
        forecast.observe(100, wall_s)
    assert forecast.expected_s(50) == pytest.approx(1.0)
