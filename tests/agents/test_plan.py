"""A plan promises what a run would do, so it refuses what a run would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from linearch.agents.plan import Plan, plan_search
from linearch.config import load_config
from linearch.errors import LinearchError


def planned(book: Path, **settings: Any) -> Plan:
    small = {
        "data.corpus": str(book),
        "data.val_windows": 8,
        "ladder.rung_tokens": [4096, 131_072],
        "workers.device": "cpu",
        "recall.enabled": False,
    }
    return plan_search(load_config("cpu", settings={**small, **settings}))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"objectives": ["beauty"]}, "unknown objective 'beauty'"),
        ({"ladder.rung_tokens": [12, 131_072]}, "12 tokens is less than one batch"),
        ({"model.vocab_size": 100}, "256 different tokens and the model 100"),
        ({"ladder.noise_baseline": "foo"}, "'foo', which is not among the baselines"),
        ({"baselines": ["foo"]}, "foo"),
        ({"data.test_windows": 64}, "the test shard, which is for finalists alone"),
        ({"recall.enabled": True, "recall.tasks": ["foo"]}, "foo"),
        ({"proposer.kind": "files", "proposer.files": ["absent.py"]}, "cannot be read"),
    ],
)
def test_a_plan_of_what_a_run_refuses_is_refused(
    book: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(LinearchError, match=says):
        planned(book, **settings)


def test_a_plan_counts_the_cooldowns_that_are_trained_beside_the_ladder(book: Path) -> None:
    alone = {
        "baselines": ["gated_deltanet"],
        "budget.max_candidates": 0,
        "ladder.noise_seeds": 2,
        "ladder.elite": 0,
        "ladder.rung_tokens": [10_000, 40_000],
    }
    assert planned(book, **alone, **{"training.cooldown_fraction": 0.0}).tokens_at_most == 80_000
    assert planned(book, **alone, **{"training.cooldown_fraction": 0.2}).tokens_at_most == 84_000


def test_a_plan_needs_no_key(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plan = planned(book, **{"proposer.kind": "llm"})
    assert plan.first_prompt is not None
