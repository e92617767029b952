"""How long the end of a search takes, foreseen from what has ended."""

from __future__ import annotations

import pytest

from linearch.agents import timetable
from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.schedule import wanted_trials
from linearch.agents.timetable import Timetable
from linearch.config import RunConfig, validate_config

SLOTS = 2


@pytest.fixture(autouse=True)
def _no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "_MARGIN", 1.0)


@pytest.fixture
def config() -> RunConfig:
    return validate_config(
        {
            "ladder": {"rung_tokens": [10, 40], "elite": 1, "elite_seeds": 2},
            "training": {"learning_rates": [0.1]},
            "recall": {"enabled": False},
        }
    )


def add(board: Board, name: str, *wall_s: float, val_bpb: float = 3.0, origin: str = "") -> None:
    """An architecture whose rungs took so many seconds each."""
    who = Candidate(
        id=name,
        name=name,
        motivation="",
        source=f"# {name}",
        origin=origin or "grammar",
        pattern="L",
        is_reference=False,
        genome=None,
        parent_ids=(),
        state="measured",
        mlp_width=16,
    )
    for rung, each_s in enumerate(wall_s):
        key = TrialKey(task="corpus", rung=rung, seed=0, learning_rate=0.1)
        who.trials[key] = Trial(
            id=f"{name}/{rung}",
            key=key,
            tokens=1,
            state="done",
            metrics={"val_bpb": val_bpb},
            wall_s=each_s,
        )
    board.add(who)


@pytest.fixture
def board() -> Board:
    """A baseline and the best candidate, both slow, beside three quick ones, of which one climbed
    and two are pruned."""
    board = Board(seed=0, n_rungs=2, objectives=("val_bpb",))
    add(board, "mamba2", 8.0, 22.0, origin="baseline")
    add(board, "best", 10.0, 30.0, val_bpb=2.0)
    for name in ("b", "c", "d"):
        add(board, name, 4.0, 10.0, val_bpb=4.0)
    return board


def test_a_fresh_seed_takes_what_the_first_of_its_architecture_took(
    board: Board, config: RunConfig
) -> None:
    table = Timetable(board, config, SLOTS)
    follows = table.follows()
    assert [(plan.architecture_id, plan.key.seed) for plan in follows] == [
        ("best", 1),
        ("mamba2", 1),
        ("best", 2),
        ("mamba2", 2),
    ]
    assert [table.trial_s(plan) for plan in follows] == [40.0, 30.0, 40.0, 30.0]
    assert table.closing_s(follows) == 40.0 + 30.0


def test_a_fresh_seed_takes_longer_where_others_do_by_now(board: Board, config: RunConfig) -> None:
    for name in ("e", "f", "g", "h", "i"):
        add(board, name, 20.0, 50.0, val_bpb=4.0)
    table = Timetable(board, config, SLOTS)
    assert table.trial_s(table.follows()[0]) == 20.0 + 50.0


def test_what_runs_and_one_more_job_delay_the_end(
    board: Board, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linearch.agents.timetable.time.monotonic", lambda: 100.0)
    table = Timetable(board, config, SLOTS)
    follows = table.follows()
    table.begin("a trial", 10.0)
    # One worker takes 10 + 30 + 40, the other 40 + 30.
    assert table.closing_s(follows) == 80.0
    # The job's worker takes 25 + 30 + 30, the other 10 + 40 + 40.
    assert table.closing_s(follows, 25.0) == 90.0
    monkeypatch.setattr("linearch.agents.timetable.time.monotonic", lambda: 107.0)
    assert table.closing_s(follows) == 73.0
    table.end("a trial")
    assert table.closing_s(follows) == 70.0


def test_the_lot_is_part_of_the_end_and_not_counted_twice(board: Board, config: RunConfig) -> None:
    for name in ("pruned 1", "pruned 2"):
        add(board, name, 4.0, val_bpb=5.0)
    table = Timetable(board, config, SLOTS)
    follows = table.follows()
    (lot,) = (plan for plan in follows if plan.purpose == "random")
    assert table.trial_s(lot) == 10.0
    # The lot and 30 + 40 on one worker, 40 + 30 on the other.
    assert table.closing_s(follows) == 80.0
    assert table.closing_s(follows, 10.0, job=lot) == 80.0


def test_the_climb_of_the_best_follows_before_a_candidate_is_on_the_last_rung(
    config: RunConfig,
) -> None:
    board = Board(seed=0, n_rungs=2, objectives=("val_bpb",))
    add(board, "mamba2", 8.0, 22.0, origin="baseline")
    assert Timetable(board, config, SLOTS).follows() == []
    add(board, "first", 4.0)
    (climb,) = Timetable(board, config, SLOTS).follows()
    assert (climb.architecture_id, climb.key.rung) == ("first", 1)


def test_the_time_of_the_bests_climb_is_kept_beside_that_of_the_fresh_seeds(
    board: Board, config: RunConfig
) -> None:
    add(board, "late", 4.0, val_bpb=1.5)
    table = Timetable(board, config, SLOTS)
    climb, *fresh = table.follows()
    assert (climb.architecture_id, climb.leads) == ("late", True)
    assert {plan.purpose for plan in fresh} == {"fresh"}
    # The climb's 10 and 30 + 40 on one worker, 40 + 30 on the other.
    assert table.closing_s(table.follows()) == 80.0


def test_a_resumed_search_knows_what_the_sessions_before_took(
    board: Board, config: RunConfig
) -> None:
    table = Timetable(board, config, SLOTS)
    add(board, "new")
    (entry,) = (plan for plan in wanted_trials(board, config) if plan.architecture_id == "new")
    assert table.trial_s(entry) == 4.0
    assert table.entry_s() == 4.0
    table.observe_judgement(3.0)
    assert table.entry_s() == 7.0
