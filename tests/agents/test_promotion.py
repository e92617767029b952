"""Who climbs by score, who by lot, and who is measured again."""

from __future__ import annotations

import pytest

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.elite import best_baseline, elite, fresh_seeds, open_fresh_seeds
from linearch.agents.promotion import drawn, lot, promoted
from linearch.agents.schedule import wanted_trials
from linearch.config import RunConfig, validate_config


def config_of(**ladder: object) -> RunConfig:
    return validate_config(
        {
            "ladder": {"rung_tokens": [10, 40], "promote_fraction": 0.5, **ladder},
            "training": {"learning_rates": [0.1]},
            "recall": {"enabled": False},
        }
    )


def candidate(name: str, origin: str = "grammar", *, is_reference: bool = False) -> Candidate:
    return Candidate(
        id=name,
        name=name,
        motivation="",
        source=f"# {name}",
        origin=origin,
        pattern="L",
        is_reference=is_reference,
        genome=None,
        parent_ids=(),
        state="measured",
        mlp_width=16,
    )


def score(who: Candidate, rung: int, val_bpb: float | None, seed: int = 0) -> None:
    key = TrialKey(task="corpus", rung=rung, seed=seed, learning_rate=0.1)
    who.trials[key] = Trial(
        id=f"{who.id}/{rung}/{seed}",
        key=key,
        tokens=1,
        state="done" if val_bpb is not None else "failed",
        metrics={"val_bpb": val_bpb},
    )


def board_with(n: int, *, seed: int = 0) -> Board:
    """Candidates c0, c1, ... whose scores on rung 0 worsen with their number."""
    board = Board(seed=seed, n_rungs=2, objectives=("val_bpb",))
    for i in range(n):
        who = candidate(f"c{i}")
        board.add(who)
        score(who, 0, 3.0 + 0.01 * i, seed=seed)
    return board


def test_about_a_tenth_of_all_is_drawn_whatever_its_score() -> None:
    board = board_with(2000)
    tickets = drawn(board, 0, config_of().ladder, is_closing=False)
    assert 160 < len(tickets) < 240
    mean_place = sum(int(name[1:]) for name in tickets) / len(tickets)
    assert 900 < mean_place < 1100


def test_the_lot_is_the_same_again_and_another_with_another_seed() -> None:
    who = candidate("a")
    assert lot(who, 0, 0) == lot(candidate("a"), 0, 0)
    assert len({lot(who, rung, seed) for rung in range(3) for seed in range(3)}) == 9


def test_when_the_search_closes_at_least_one_of_the_pruned_is_drawn() -> None:
    board = board_with(4)
    ladder = config_of(random_promote_fraction=1e-9).ladder
    assert not drawn(board, 0, ladder, is_closing=False)
    (name,) = drawn(board, 0, ladder, is_closing=True)
    assert name not in promoted(board, 0, ladder)


def test_nobody_is_drawn_where_the_share_is_zero() -> None:
    board = board_with(30)
    assert not drawn(board, 0, config_of(random_promote_fraction=0).ladder, is_closing=True)


def test_a_trial_says_whether_score_or_lot_brought_it_there() -> None:
    config = config_of(random_promote_fraction=0.3)
    board = board_with(40)
    wanted = {plan.architecture_id: plan.purpose for plan in wanted_trials(board, config)}
    assert {wanted.pop(f"c{i}") for i in range(20)} == {"promoted"}
    assert set(wanted.values()) == {"random"}
    assert 1 <= len(wanted) <= 14


def test_closing_starts_no_candidate_and_promotes_the_best_alone_by_its_score() -> None:
    config = config_of()
    board = board_with(10)
    board.add(candidate("new"))
    best, *others = wanted_trials(board, config, is_closing=True)
    assert (best.architecture_id, best.key.rung, best.purpose) == ("c0", 1, "promoted")
    assert {plan.purpose for plan in others} == {"random"}


def test_the_best_climbs_before_all_others_and_where_it_fails_no_other_takes_its_place() -> None:
    config = config_of(random_promote_fraction=0.3)
    board = board_with(40)
    first, *others = wanted_trials(board, config)
    assert (first.architecture_id, first.leads) == ("c0", True)
    assert not any(plan.leads for plan in others)
    score(board["c0"], 1, None)
    assert not any(plan.leads for plan in wanted_trials(board, config))


def test_the_best_of_a_rung_completes_its_grid_of_rates_though_the_search_closes() -> None:
    table = config_of().model_dump(mode="json")
    config = validate_config(
        {**table, "training": {"learning_rates": [0.1, 0.2], "widen_rates": 0}}
    )
    board = board_with(4)
    wanted = wanted_trials(board, config, is_closing=True)
    assert [(plan.architecture_id, plan.key.learning_rate) for plan in wanted] == [("c0", 0.2)]


def test_a_fresh_seed_that_has_begun_is_ended_before_the_best_climbs() -> None:
    board = rivals()
    board.add(late := candidate("late"))
    score(late, 0, 2.9)
    score(board["c1"], 0, 3.0, seed=1)
    wanted = wanted_trials(board, config_of(elite=1), is_closing=True)
    asked = [(plan.architecture_id, plan.key.rung, plan.key.seed) for plan in wanted]
    assert asked[:2] == [("c1", 1, 1), ("late", 1, 0)]


def rivals() -> Board:
    board = board_with(4)
    for name, is_reference, val_bpb in (
        ("softmax", True, 2.0),
        ("mamba", False, 2.5),
        ("gla", False, 2.6),
    ):
        who = candidate(name, "baseline", is_reference=is_reference)
        board.add(who)
        score(who, 0, 3.0)
        score(who, 1, val_bpb)
    for name, val_bpb in (("c0", 2.4), ("c1", 2.2), ("c2", 2.3)):
        score(board[name], 1, val_bpb)
    return board


def test_the_best_on_the_last_rung_and_the_best_baseline_get_fresh_seeds() -> None:
    board, config = rivals(), config_of(elite=2, elite_seeds=2)
    assert [who.id for who in elite(board, config)] == ["c1", "c2"]
    rival = best_baseline(board)
    assert rival is not None
    assert rival.id == "mamba"  # softmax attention does not compete
    assert [(who.id, seed) for who, seed in fresh_seeds(board, config)] == [
        ("c1", 1),
        ("mamba", 1),
        ("c2", 1),
        ("c1", 2),
        ("mamba", 2),
        ("c2", 2),
    ]


def test_what_is_in_quarantine_is_not_the_elite() -> None:
    board, config = rivals(), config_of(elite=1)
    board["c1"].state = "quarantined"
    assert [who.id for who in elite(board, config)] == ["c2"]


def test_a_seed_that_is_measured_or_failed_is_not_asked_for_again() -> None:
    board, config = rivals(), config_of(elite=1, elite_seeds=1)
    score(board["c1"], 0, 3.0, seed=1)
    score(board["c1"], 1, 2.2, seed=1)
    score(board["mamba"], 0, None, seed=1)
    assert open_fresh_seeds(board, config) == []


def test_fresh_seeds_climb_every_rung_without_being_promoted() -> None:
    board, config = rivals(), config_of(elite=1, elite_seeds=1, random_promote_fraction=0)
    score(board["c1"], 0, 9.9, seed=1)
    plans = [plan for plan in wanted_trials(board, config, is_closing=True)]
    asked = [(plan.architecture_id, plan.key.rung, plan.key.seed) for plan in plans]
    assert asked == [("c1", 1, 1), ("mamba", 0, 1)]


@pytest.mark.parametrize("elite_size", [0, 1])
def test_without_an_elite_nothing_is_measured_again(elite_size: int) -> None:
    board = board_with(3) if elite_size else rivals()
    assert fresh_seeds(board, config_of(elite=elite_size)) == []
