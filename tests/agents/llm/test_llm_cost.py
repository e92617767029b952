"""Costs are known only where every number that makes them up is."""

from __future__ import annotations

import pytest

from linearch.agents.llm.cost import cost_usd, forecast
from linearch.config import LLMConfig

PRICED = LLMConfig(usd_per_million_input=2.0, usd_per_million_output=10.0)


def test_a_cost_is_tokens_times_prices() -> None:
    assert cost_usd(PRICED, 1_000_000, 100_000) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        (LLMConfig(), (10, 10)),
        (LLMConfig(usd_per_million_input=2.0), (10, 10)),
        (PRICED, (None, 10)),
        (PRICED, (10, None)),
    ],
)
def test_a_cost_with_a_part_unknown_is_none(
    config: LLMConfig, counts: tuple[int | None, int | None]
) -> None:
    assert cost_usd(config, *counts) is None


def test_a_free_model_costs_nothing_rather_than_an_unknown_sum() -> None:
    free = LLMConfig(usd_per_million_input=0.0, usd_per_million_output=0.0)
    assert cost_usd(free, 10, 10) == 0.0


def test_a_forecast_counts_a_proposal_and_two_repairs_a_candidate() -> None:
    expected = forecast(PRICED, candidates=20, prompt_chars=35_000)
    assert expected.calls == (20, 60)
    assert expected.input_tokens_per_call == 10_000
    assert expected.usd is not None
    assert expected.usd[0] == pytest.approx(20 * (0.02 + 0.015))
    assert expected.usd[1] == pytest.approx(60 * (0.02 + 0.16))


def test_a_forecast_without_prices_has_no_sum() -> None:
    assert forecast(LLMConfig(), candidates=20, prompt_chars=35_000).usd is None
