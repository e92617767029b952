"""A score too good to be true never leads: the search over a real store, with scripted workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.promotion import best_fraction
from linearch.agents.quarantine import quarantine_suspects
from linearch.agents.restore import restore_board
from linearch.agents.schedule import wanted_trials
from linearch.agents.selection import choose_parents
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.evaluator.results import GateResult, Judgement, TrialResult

_TEXT_ALARM = "0.9 bits per byte are fewer than xz needs"


@pytest.fixture
def config() -> RunConfig:
    return validate_config(
        {
            "baselines": ["linear_attention", "gated_deltanet"],
            "ladder": {"rung_tokens": [10, 40], "promote_fraction": 1.0, "noise_seeds": 2},
            "training": {"learning_rates": [0.1]},
            "recall": {"enabled": False},
            "gates": {"alarm_share": 0.15},
        }
    )


class Race:
    """A run in a store and its board, filled the way a driver fills them."""

    def __init__(self, store: Store, config: RunConfig) -> None:
        self.store, self.config = store, config
        self.run_id = store.create_run(config.model_dump(mode="json"), {}, config.seed)
        self.board = self.new_board()

    def new_board(self) -> Board:
        return Board(seed=self.config.seed, n_rungs=2, objectives=self.config.objectives)

    def add(self, name: str, origin: str = "grammar") -> Candidate:
        row = self.store.add_architecture(
            self.run_id,
            name=name,
            motivation="",
            expectation="",
            origin=origin,
            source=f"# {name}",
            source_hash=name,
            normalised_hash=name,
            pattern="L",
        )
        gates = (GateResult(gate="causality", passed=True),)
        self.store.record_judgement(row.id, Judgement(results=gates, mlp_width=16))
        candidate = Candidate(
            id=row.id,
            name=name,
            motivation="",
            source=row.source,
            origin=origin,
            pattern="L",
            is_reference=False,
            genome=None,
            parent_ids=(),
            state="sound",
            mlp_width=16,
        )
        self.board.add(candidate)
        return candidate

    def score(
        self,
        candidate: Candidate,
        val_bpb: float,
        *,
        rung: int = 0,
        alarm: str | None = None,
        tokens_per_s: float = 30_000.0,
        train_cost_ratio: float = 3.0,
    ) -> None:
        key = TrialKey(task="corpus", rung=rung, seed=0, learning_rate=0.1)
        row = self.store.enqueue_trial(
            self.run_id,
            candidate.id,
            task="corpus",
            rung=rung,
            tokens=10,
            seed=0,
            learning_rate=0.1,
        )
        epoch = self.store.start_trial(row.id)
        assert epoch is not None
        metrics: dict[str, float | None] = {
            "val_bpb": val_bpb,
            "tokens_per_s": tokens_per_s,
            "train_wall_s": 300_000 / tokens_per_s,
            "train_cpu_s": 10.0,
            "train_cost_ratio": train_cost_ratio,
        }
        result = TrialResult(status="done", metrics=metrics, alarm=alarm)
        self.store.finish_trial(row.id, epoch, result)
        candidate.state = self.store.architecture(candidate.id).state
        trial = Trial(id=row.id, key=key, tokens=10, state="done", alarm=alarm)
        trial.metrics = dict(metrics)
        candidate.trials[key] = trial

    def baselines(self, rung: int = 0, alarm: str | None = None) -> None:
        """Both, scored up to this rung: 2.5 bits per byte are the best at each."""
        for name, val_bpb in (("linear_attention", 3.1), ("gated_deltanet", 2.5)):
            candidate = self.add(name, "baseline")
            for step in range(rung + 1):
                self.score(candidate, val_bpb, rung=step, alarm=alarm)

    def quarantine(self) -> list[str]:
        return quarantine_suspects(self.store, self.board, self.config)


@pytest.fixture
def race(tmp_path: Path, config: RunConfig) -> Iterator[Race]:
    with Store.open(tmp_path / "linearch.db") as store:
        yield Race(store, config)


def test_a_lead_that_no_one_would_believe_is_quarantined_with_its_numbers(race: Race) -> None:
    race.baselines(rung=1)
    good, suspect = race.add("good"), race.add("suspect")
    race.score(good, 2.2)
    race.score(suspect, 2.0)
    (note,) = race.quarantine()
    assert "suspect" in note
    assert "20% below" in note
    assert (good.state, suspect.state) == ("measured", "quarantined")
    assert suspect.reason == race.store.architecture(suspect.id).reason
    assert race.quarantine() == []


def test_a_winner_that_trained_for_many_times_the_time_is_quarantined(race: Race) -> None:
    race.baselines(rung=1)
    slow_winner, slow_loser = race.add("winner"), race.add("loser")
    race.score(slow_winner, 2.4, tokens_per_s=5_000.0)
    race.score(slow_loser, 2.6, tokens_per_s=5_000.0)
    (note,) = race.quarantine()
    assert "winner is in quarantine: it trains 6.0 times slower" in note
    assert slow_loser.state == "measured"


def test_a_winner_whose_training_costs_more_than_its_steps_is_quarantined(race: Race) -> None:
    race.baselines(rung=1)
    busy_winner, busy_loser = race.add("winner"), race.add("loser")
    race.score(busy_winner, 2.4, train_cost_ratio=6.0)
    race.score(busy_loser, 2.6, train_cost_ratio=6.0)
    (note,) = race.quarantine()
    assert "winner is in quarantine: a token costs it 6.0 times as much in training" in note
    assert busy_loser.state == "measured"


def test_without_the_alarm_the_suspect_would_have_led(race: Race) -> None:
    race.baselines(rung=1)
    for name, val_bpb in (("good", 2.2), ("suspect", 2.0)):
        race.score(race.add(name), val_bpb)
    best = [p.best_val_bpb for p in race.store.queries.best_so_far(race.run_id, 0)]
    assert best[-1] == 2.0
    race.quarantine()
    best = [p.best_val_bpb for p in race.store.queries.best_so_far(race.run_id, 0)]
    assert best[-1] == 2.2


def test_a_trials_own_alarm_is_heard_unless_a_baseline_sets_it_off_too(race: Race) -> None:
    race.baselines(rung=1)
    suspect = race.add("suspect")
    race.score(suspect, 2.4, alarm=_TEXT_ALARM)
    assert race.quarantine() == [f"suspect is in quarantine: {_TEXT_ALARM}"]


def test_on_a_text_that_known_mixers_compress_as_well_the_alarm_means_nothing(race: Race) -> None:
    race.baselines(rung=1, alarm=_TEXT_ALARM)
    race.score(race.add("honest"), 2.4, alarm=_TEXT_ALARM)
    assert race.quarantine() == []


def test_nobody_is_accused_before_every_baseline_has_its_score(race: Race) -> None:
    early = race.add("linear_attention", "baseline")
    race.score(early, 3.1)
    late = race.add("gated_deltanet", "baseline")
    candidate = race.add("candidate")
    race.score(candidate, 2.4)  # far below the first baseline alone
    assert race.quarantine() == []
    race.score(late, 2.5)
    assert race.quarantine() == []
    assert candidate.state == "measured"


def test_what_is_in_quarantine_trains_on_no_further_and_is_no_ones_parent(race: Race) -> None:
    race.baselines(rung=1)
    good, suspect = race.add("good"), race.add("suspect")
    race.score(good, 2.3)
    race.score(suspect, 1.9)
    before = {plan.architecture_id for plan in wanted_trials(race.board, race.config)}
    assert {good.id, suspect.id} <= before
    race.quarantine()
    assert suspect.id not in {p.architecture_id for p in wanted_trials(race.board, race.config)}
    assert best_fraction(race.board, 0, 1.0) == {good.id}
    evidence = race.board.evidence()
    parents = choose_parents(evidence.candidates, ("val_bpb",), 5, random.Random(0))
    assert [parent.name for parent in parents] == ["good"]
    told = {row.name: row for row in evidence.candidates}["suspect"]
    assert (told.state, told.rung) == ("quarantined", None)
    assert "below the best baseline" in (told.reason or "")
    assert race.board.count_sound() == 2


def test_a_resumed_run_keeps_the_quarantine(race: Race) -> None:
    race.baselines(rung=1)
    suspect = race.add("suspect")
    race.score(suspect, 1.9)
    race.quarantine()
    race.board = race.new_board()
    restore_board(race.store, race.run_id, race.board)
    assert race.board[suspect.id].state == "quarantined"
    assert race.quarantine() == []
    assert suspect.id not in {p.architecture_id for p in wanted_trials(race.board, race.config)}


def test_a_driver_killed_before_the_quarantine_makes_up_for_it(race: Race) -> None:
    race.baselines(rung=1)
    suspect = race.add("suspect")
    race.score(suspect, 2.4, alarm=_TEXT_ALARM)
    race.board = race.new_board()
    restore_board(race.store, race.run_id, race.board)
    assert len(race.quarantine()) == 1


def test_what_an_audit_released_races_on_and_is_not_accused_again(race: Race) -> None:
    race.baselines(rung=1)
    suspect = race.add("suspect")
    race.score(suspect, 1.9)
    race.quarantine()
    race.store.release(suspect.id)
    race.board = race.new_board()
    restore_board(race.store, race.run_id, race.board)
    assert race.quarantine() == []
    assert suspect.id in {p.architecture_id for p in wanted_trials(race.board, race.config)}


def test_what_a_later_trial_found_out_is_no_ones_parent_either(race: Race) -> None:
    leaky = race.add("leaky")
    race.score(leaky, 2.2)
    assert [row.rung for row in race.board.evidence().candidates] == [0]
    leaky.state, leaky.reason = "rejected", "noncausal: it leaks"
    (told,) = race.board.evidence().candidates
    assert (told.rung, told.rung_0_val_bpb) == (None, None)
    assert "recall_mqar" not in told.metrics
    assert best_fraction(race.board, 0, 1.0) == set()
