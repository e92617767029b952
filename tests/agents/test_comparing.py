"""Which seeds and windows a comparison rests on, by a rule that looks at no score."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from linearch.agents.comparing import comparisons
from linearch.db import LeaderboardRow, Score

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Windows = dict[str, tuple[float, ...]]


def architecture(
    name: str, scores: Mapping[int, float], *, fresh: tuple[int, ...] = (), origin: str = "grammar"
) -> tuple[LeaderboardRow, list[Score]]:
    """On rung 1, with its scores by seed, of which those of `fresh` are fresh."""
    trials = [
        Score(
            trial_id=f"{name}/{seed}",
            architecture_id=name,
            task="corpus",
            rung=1,
            tokens=1,
            seed=seed,
            learning_rate=0.1,
            purpose="fresh" if seed in fresh else "promoted",
            finished_at=NOW,
            val_bpb=value,
            test_bpb=None,
            recall=None,
            tokens_per_s=None,
            step_time_s=None,
            decode_time_s=None,
            peak_memory_bytes=None,
        )
        for seed, value in scores.items()
    ]
    values = tuple(scores.values())
    row = LeaderboardRow(
        id=name,
        number=1,
        name=name,
        motivation="",
        origin=origin,
        state="measured",
        is_baseline=origin == "baseline",
        is_reference=False,
        family=None,
        pattern="L",
        rung=1,
        val_bpb=sum(values) / len(values),
        val_bpb_values=values,
        n_seeds=len(values),
        trial_ids=tuple(trial.trial_id for trial in trials),
        created_at=NOW,
    )
    return row, trials


def details(
    *made: tuple[LeaderboardRow, list[Score]], windows: Windows | None = None
) -> list[dict[str, Any]]:
    rows = [row for row, _ in made]
    scores = {score.trial_id: score for _, trials in made for score in trials}
    found = comparisons(rows, scores, windows or {}, rows)
    return [{**(row.detail or {}), "value": row.value, "n": row.n} for row in found]


RIVAL = architecture("rival", {0: 2.60, 1: 2.71, 2: 2.80}, origin="baseline")
NEW = architecture("new", {0: 2.40, 1: 2.60, 2: 2.70}, fresh=(1, 2))


def test_fresh_seeds_that_are_the_baselines_too_are_compared_in_pairs() -> None:
    (found,) = details(RIVAL, NEW)
    assert found["is_paired"]
    assert (found["n"], found["n_baseline"]) == (2, 2)
    assert found["value"] == pytest.approx((-0.11 - 0.10) / 2)
    assert found["freedom"] == (2 - 1) * (3 - 1)
    assert found["unpaired"]["delta"] == pytest.approx(2.65 - (2.60 + 2.71 + 2.80) / 3)


@pytest.mark.parametrize(
    ("scores", "fresh"),
    [
        ({0: 2.4, 1: 2.6, 7: 2.7}, (1, 7)),  # one of them is not the baseline's
        ({0: 2.4, 1: 2.6}, (1,)),  # one alone
        ({0: 2.4}, ()),  # none is fresh
    ],
)
def test_other_seeds_are_compared_unpaired(
    scores: dict[int, float], fresh: tuple[int, ...]
) -> None:
    (found,) = details(RIVAL, architecture("new", scores, fresh=fresh))
    assert not found["is_paired"]
    assert found["unpaired"] is None
    assert (found["n"], found["n_baseline"]) == (len(fresh) or 1, 3)


def test_windows_are_those_of_the_seeds_that_both_have() -> None:
    windows = {
        **{f"new/{seed}": (9.0, 19.0, 29.0) for seed in (1, 2)},
        **{f"rival/{seed}": (10.0, 20.0, 30.0) for seed in (1, 2)},
        "new/0": (1.0, 1.0, 1.0),
        "rival/0": (500.0, 2.0, 2.0),
    }
    (found,) = details(RIVAL, NEW, windows=windows)
    assert found["n_windows"] == 3
    assert found["windows"]["delta"] == pytest.approx(found["value"])


@pytest.mark.parametrize(
    "windows",
    [
        {},
        {"new/1": (1.0, 2.0)},
        {"new/1": (1.0, 2.0), "rival/1": (1.0, 2.0, 3.0)},
        {"new/1": (1.0,), "rival/1": (2.0,)},
    ],
)
def test_windows_that_are_missing_or_others_are_not_compared(windows: Windows) -> None:
    (found,) = details(RIVAL, NEW, windows=windows)
    assert (found["windows"], found["n_windows"]) == (None, None)
