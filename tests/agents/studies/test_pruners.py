"""Optuna's pruners decide from the board alone, each score once, in the order they came in."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.promotion import promoted
from linearch.agents.schedule import wanted_trials
from linearch.config import LadderConfig, RunConfig, validate_config

START = datetime(2026, 1, 1, tzinfo=UTC)


def ladder(pruner: str, rungs: tuple[int, ...] = (10, 40, 160), factor: int = 3) -> LadderConfig:
    return config(pruner, rungs, factor).ladder


def config(pruner: str, rungs: tuple[int, ...] = (10, 40, 160), factor: int = 3) -> RunConfig:
    settings = {"pruner": pruner, "rung_tokens": rungs, "reduction_factor": factor}
    return validate_config(
        {"ladder": settings, "training": {"learning_rates": [0.1]}, "recall": {"enabled": False}}
    )


def add(board: Board, name: str, *scores: float, minute: int) -> None:
    """A candidate with a score on each of the lowest rungs, the first of which came in `minute`."""
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
    for rung, val_bpb in enumerate(scores):
        key = TrialKey(task="corpus", rung=rung, seed=0, learning_rate=0.1)
        who.trials[key] = Trial(
            id=f"{name}/{rung}",
            key=key,
            tokens=1,
            state="done",
            metrics={"val_bpb": val_bpb},
            finished_at=START + timedelta(minutes=minute + 100 * rung),
        )
    board.add(who)


def board() -> Board:
    return Board(seed=0, n_rungs=3, objectives=("val_bpb",))


def test_successive_halving_lets_the_best_third_so_far_go_on() -> None:
    made = board()
    for minute, val_bpb in enumerate((3.0, 3.2, 3.1, 3.3, 2.9, 3.4, 2.8)):
        add(made, f"c{minute}", val_bpb, minute=minute)
    # Fewer than three: the best so far. Then a third, rounded down, of those that came before.
    assert promoted(made, 0, ladder("successive_halving")) == {"c0", "c4", "c6"}


def test_a_decision_does_not_change_with_what_comes_later() -> None:
    made, rng = board(), random.Random(0)
    kept_before: set[str] = set()
    for minute in range(40):
        add(made, f"c{minute:02}", 3 + rng.random(), minute=minute)
        kept = promoted(made, 0, ladder("successive_halving"))
        assert kept_before <= kept
        assert kept - kept_before <= {f"c{minute:02}"}
        kept_before = kept
    assert 10 <= len(kept_before) <= 20


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_the_order_of_the_board_does_not_matter_but_that_of_the_scores(pruner: str) -> None:
    scores = [3.0, 3.2, 3.1, 3.3, 2.9, 3.4, 2.8, 3.05]
    one, other = board(), board()
    for minute, val_bpb in enumerate(scores):
        add(one, f"c{minute}", val_bpb, minute=minute)
    for minute, val_bpb in reversed(list(enumerate(scores))):
        add(other, f"c{minute}", val_bpb, minute=minute)
    assert promoted(one, 0, ladder(pruner)) == promoted(other, 0, ladder(pruner))


def test_hyperband_spares_some_of_the_worst_on_the_first_rung() -> None:
    made = board()
    for minute in range(60):
        add(made, f"c{minute:02}", 3 + 0.01 * minute, minute=minute)
    halved = promoted(made, 0, ladder("successive_halving"))
    spared = promoted(made, 0, ladder("hyperband"))
    assert len(halved) < len(spared) < 60
    assert max(int(name[1:]) for name in spared) > 40


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_hyperband_has_a_bracket_for_each_rung(factor: int) -> None:
    made = board()
    for minute in range(30):
        add(made, f"c{minute:02}", 4 - 0.01 * minute, 3.0 + 0.01 * minute, minute=minute)
    rungs = tuple(10 * 4**i for i in range(6))
    assert promoted(made, 1, ladder("hyperband", rungs, factor))


def test_a_later_rung_has_its_own_decision() -> None:
    made = board()
    for minute, (first, second) in enumerate(((2.9, 2.5), (2.8, 2.6), (2.7, 2.4))):
        add(made, f"c{minute}", first, second, minute=minute)
    assert promoted(made, 1, ladder("successive_halving")) == {"c0", "c2"}


def test_what_is_in_quarantine_is_not_reported() -> None:
    made = board()
    add(made, "suspect", 0.4, minute=0)
    add(made, "sound", 3.0, minute=1)
    made["suspect"].state = "quarantined"
    assert promoted(made, 0, ladder("successive_halving")) == {"sound"}


def test_the_schedule_asks_the_configured_pruner() -> None:
    made = board()
    for minute, val_bpb in enumerate((3.0, 3.1, 3.2, 3.3)):
        add(made, f"c{minute}", val_bpb, minute=minute)
    halved, asha = (
        {
            plan.architecture_id
            for plan in wanted_trials(made, config(pruner))
            if plan.purpose == "promoted"
        }
        for pruner in ("successive_halving", "asha")
    )
    assert halved == {"c0"}
    assert asha == {"c0", "c1", "c2", "c3"}  # four fifths, rounded up
