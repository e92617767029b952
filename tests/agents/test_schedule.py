"""What a run wants next follows from the board alone, so a resumed run wants the same."""

from __future__ import annotations

import pytest

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.promotion import promoted
from linearch.agents.schedule import parent_checkpoint, wanted_trials
from linearch.config import RunConfig, validate_config


@pytest.fixture
def config() -> RunConfig:
    return validate_config(
        {
            "ladder": {
                "rung_tokens": [10, 40],
                "promote_fraction": 0.5,
                "random_promote_fraction": 0.0,
                "noise_seeds": 3,
            },
            "training": {"learning_rates": [0.1]},
        }
    )


def board_of(config: RunConfig) -> Board:
    return Board(
        seed=config.seed,
        n_rungs=len(config.ladder.rung_tokens),
        objectives=config.objectives,
    )


def candidate(name: str, origin: str = "grammar", state: str = "sound") -> Candidate:
    return Candidate(
        id=name,
        name=name,
        motivation="",
        source="",
        origin=origin,
        pattern="L",
        is_reference=False,
        genome=None,
        parent_ids=(),
        state=state,
        mlp_width=16,
    )


def scored(
    who: Candidate, rung: int, val_bpb: float | None, *, seed: int = 0, rate: float = 0.1
) -> None:
    key = TrialKey(task="corpus", rung=rung, seed=seed, learning_rate=rate)
    state = "done" if val_bpb is not None else "failed"
    who.trials[key] = Trial(
        id=f"{who.id}/{rung}/{seed}/{rate}",
        key=key,
        tokens=1,
        state=state,
        metrics={"val_bpb": val_bpb},
    )


def keys(board: Board, config: RunConfig) -> list[tuple[str, str, int, int]]:
    return [
        (plan.architecture_id, plan.key.task, plan.key.rung, plan.key.seed)
        for plan in wanted_trials(board, config)
    ]


def test_only_sound_candidates_are_trained(config: RunConfig) -> None:
    board = board_of(config)
    for state in ("proposed", "rejected", "sound"):
        board.add(candidate(state, state=state))
    assert keys(board, config) == [("sound", "corpus", 0, 0)]


def test_baselines_go_before_candidates_and_always_climb(config: RunConfig) -> None:
    board = board_of(config)
    young, known = candidate("young"), candidate("retnet", origin="baseline")
    board.add(young)
    board.add(known)
    scored(known, 0, 9.9)
    assert keys(board, config) == [("retnet", "corpus", 1, 0), ("young", "corpus", 0, 0)]


def test_the_noise_baseline_repeats_every_rung_with_fresh_seeds(config: RunConfig) -> None:
    board = board_of(config)
    known = candidate(config.ladder.noise_baseline, origin="baseline")
    board.add(known)
    assert keys(board, config) == [(known.id, "corpus", 0, 0)]
    scored(known, 0, 3.0)
    scored(known, 1, 2.5)
    scored(known, 0, 3.1, seed=1)
    wanted = keys(board, config)
    assert (known.id, "corpus", 1, 1) in wanted
    assert (known.id, "corpus", 0, 2) in wanted


def test_the_best_fraction_climbs_and_a_failed_one_never_does(config: RunConfig) -> None:
    board = board_of(config)
    for name, val_bpb in (("a", 3.0), ("b", 2.0), ("c", 4.0), ("d", None), ("e", 1.0)):
        who = candidate(name)
        board.add(who)
        scored(who, 0, val_bpb)
    assert promoted(board, 0, config.ladder) == {"e", "b"}
    assert [key for key in keys(board, config) if key[2] == 1] == [
        ("e", "corpus", 1, 0),
        ("b", "corpus", 1, 0),
    ]


def test_a_rung_waits_for_the_whole_grid_and_takes_its_best_rate(config: RunConfig) -> None:
    config = validate_config(
        {**config.model_dump(), "training": {"learning_rates": [0.1, 0.2, 0.3]}}
    )
    board = board_of(config)
    who = candidate("a")
    board.add(who)
    scored(who, 0, 3.0, rate=0.1)
    scored(who, 0, 2.0, rate=0.2)
    assert [plan.key.learning_rate for plan in wanted_trials(board, config)] == [0.3]
    scored(who, 0, None, rate=0.3)
    (plan,) = wanted_trials(board, config)
    assert (plan.key.rung, plan.key.learning_rate) == (1, 0.2)
    below = parent_checkpoint(who, plan.key)
    assert below is not None
    assert below.val_bpb == 2.0


def test_recall_is_probed_last_and_best_first(config: RunConfig) -> None:
    board = board_of(config)
    for name, val_bpb in (("a", 3.0), ("b", 2.0)):
        who = candidate(name, origin="baseline")
        board.add(who)
        scored(who, 0, val_bpb)
        scored(who, 1, val_bpb)
    board.add(candidate("c"))
    assert keys(board, config) == [
        ("c", "corpus", 0, 0),
        ("b", "mqar", 1, 0),
        ("a", "mqar", 1, 0),
    ]


def test_tasks_have_rates_and_seeds_of_their_own_where_asked(config: RunConfig) -> None:
    recall = {"learning_rates": [0.2, 0.3], "seeds": 2, "tasks": ["mqar", "parity"]}
    config = validate_config({**config.model_dump(mode="json"), "recall": recall})
    board = board_of(config)
    board.add(who := candidate("a", origin="baseline"))
    scored(who, 0, 3.0)
    scored(who, 1, 3.0)
    probes = [plan.key for plan in wanted_trials(board, config) if plan.purpose == "probe"]
    assert [key.seed for key in probes] == 4 * [0] + 4 * [1]
    asked = {(key.task, key.learning_rate) for key in probes}
    assert asked == {(task, rate) for task in ("mqar", "parity") for rate in (0.2, 0.3)}
