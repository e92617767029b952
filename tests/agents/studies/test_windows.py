"""The Wilcoxon pruner decides by what each held-out window cost, beside the best so far."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from statistics import fmean

import pytest
from scipy import stats

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.promotion import promoted
from linearch.agents.schedule import wanted_trials
from linearch.config import RunConfig, validate_config

START = datetime(2026, 1, 1, tzinfo=UTC)
N_WINDOWS = 64


def config(p: float = 0.1) -> RunConfig:
    ladder = {"pruner": "wilcoxon", "rung_tokens": (10, 40, 160), "wilcoxon_p": p}
    return validate_config(
        {"ladder": ladder, "training": {"learning_rates": [0.1]}, "recall": {"enabled": False}}
    )


def board() -> Board:
    return Board(seed=0, n_rungs=3, objectives=("val_bpb",))


def add(
    made: Board, name: str, mean: float, *, minute: int, spread: float = 0.05, rung: int = 0
) -> tuple[float, ...]:
    """A candidate whose windows are as hard as all others find them, and cost it `mean`."""
    hard, own = random.Random(0), random.Random(name)
    alone = [spread * own.gauss(0, 1) for _ in range(N_WINDOWS)]
    nats = tuple(mean + hard.gauss(0, 1) + extra - fmean(alone) for extra in alone)
    who = Candidate(
        id=name,
        name=name,
        motivation="",
        source=f"# {name}",
        origin="grammar",
        pattern="L",
        is_reference=False,
        genome=None,
        parent_ids=(),
        state="measured",
        mlp_width=16,
    )
    key = TrialKey(task="corpus", rung=rung, seed=0, learning_rate=0.1)
    who.trials[key] = Trial(
        id=name,
        key=key,
        tokens=1,
        state="done",
        metrics={"val_bpb": mean},
        window_nats=nats,
        finished_at=START + timedelta(minutes=minute),
    )
    made.add(who)
    return nats


def test_what_is_worse_window_by_window_than_the_best_so_far_is_pruned() -> None:
    made = board()
    for minute, (name, mean) in enumerate((("first", 3.0), ("worse", 3.1), ("better", 2.9))):
        add(made, name, mean, minute=minute)
    add(made, "middling", 2.95, minute=9)  # better than the first, worse than the best by then
    assert promoted(made, 0, config().ladder) == {"first", "better"}


def test_a_difference_within_what_windows_differ_by_is_no_reason() -> None:
    made = board()
    add(made, "best", 3.0, minute=0)
    add(made, "unsure", 3.02, minute=1, spread=0.5)  # far less than an unpaired test would see
    assert promoted(made, 0, config().ladder) == {"best", "unsure"}


@pytest.mark.parametrize(("share", "is_kept"), [(0.99, True), (1.01, False)])
def test_the_threshold_is_that_of_the_signed_rank_test(share: float, is_kept: bool) -> None:
    made = board()
    best = add(made, "best", 3.0, minute=0)
    other = add(made, "other", 3.03, minute=1, spread=0.1)
    differences = [a - b for a, b in zip(other, best, strict=True)]
    p = float(stats.wilcoxon(differences, alternative="greater").pvalue)
    assert ("other" in promoted(made, 0, config(p * share).ladder)) is is_kept


def test_the_order_of_the_board_does_not_matter_but_that_of_the_scores() -> None:
    one, other = board(), board()
    means = [3.0, 2.9, 3.05, 2.95, 2.8, 2.85]
    for minute, mean in enumerate(means):
        add(one, f"c{minute}", mean, minute=minute)
    for minute, mean in reversed(list(enumerate(means))):
        add(other, f"c{minute}", mean, minute=minute)
    assert promoted(one, 0, config().ladder) == promoted(other, 0, config().ladder)
    assert promoted(one, 0, config().ladder) == {"c0", "c1", "c4"}


def test_a_decision_does_not_change_with_what_comes_later() -> None:
    made, rng = board(), random.Random(0)
    kept_before: set[str] = set()
    for minute in range(20):
        add(made, f"c{minute:02}", 3 + 0.1 * rng.random(), minute=minute)
        kept = promoted(made, 0, config().ladder)
        assert kept_before <= kept <= kept_before | {f"c{minute:02}"}
        kept_before = kept
    assert kept_before < {f"c{minute:02}" for minute in range(20)}


def test_rungs_are_judged_apart_and_what_is_in_quarantine_by_none() -> None:
    made = board()
    add(made, "suspect", 0.4, minute=0)
    made["suspect"].state = "quarantined"
    add(made, "low", 3.0, minute=1)
    add(made, "above", 3.3, minute=2, rung=1)
    assert promoted(made, 0, config().ladder) == {"low"}
    assert promoted(made, 1, config().ladder) == {"above"}


def test_without_windows_nothing_is_pruned() -> None:
    made = board()
    add(made, "best", 3.0, minute=0)
    add(made, "unknown", 4.0, minute=1)
    next(iter(made["unknown"].trials.values())).window_nats = None
    assert promoted(made, 0, config().ladder) == {"best", "unknown"}


def test_the_schedule_asks_it() -> None:
    made = board()
    add(made, "best", 3.0, minute=0)
    add(made, "worse", 3.5, minute=1)
    plans = wanted_trials(made, config())
    assert {plan.architecture_id for plan in plans if plan.purpose == "promoted"} == {"best"}
