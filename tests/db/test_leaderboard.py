from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

import pytest
from sqlalchemy import insert

from linearch.db import LeaderboardRow, StatisticRow, Store, new_id
from linearch.db.schema import Architecture, Metric, Parent, Trial
from linearch.evaluator.results import TrialResult


def only(lab: Any) -> LeaderboardRow:
    (row,) = lab.store.queries.leaderboard(lab.run_id)
    return row


def test_an_empty_run_has_an_empty_leaderboard(lab: Any) -> None:
    assert lab.store.queries.leaderboard(lab.run_id) == ()


def test_the_best_rate_is_quoted_with_all_its_seeds(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 2.0, learning_rate=1e-2)
    second = lab.score(row.id, 1.8, learning_rate=1e-3, seed=1)
    first = lab.score(row.id, 1.9, learning_rate=1e-3, seed=0)
    lab.finish(lab.enqueue(row.id, learning_rate=1e-1).id, TrialResult(status="diverged"))
    shown = only(lab)
    assert shown.val_bpb == pytest.approx(1.85)
    assert (shown.val_bpb_values, shown.n_seeds) == ((1.9, 1.8), 2)
    assert shown.learning_rate == 1e-3
    assert (shown.trial_id, shown.trial_ids) == (first.id, (first.id, second.id))


def test_the_highest_rung_with_a_score_is_quoted(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 1.0, rung=0)
    lab.score(row.id, 3.0, rung=1, tokens=524_288)
    lab.finish(lab.enqueue(row.id, rung=2).id, TrialResult(status="timeout"))
    shown = only(lab)
    assert (shown.rung, shown.tokens, shown.val_bpb) == (1, 524_288, 3.0)
    assert shown.val_bpb_by_rung == {0: 1.0, 1: 3.0}
    assert shown.state == "measured"


def test_missing_measurements_are_none_and_never_zero(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 2.0)
    shown = only(lab)
    assert shown.tokens_per_s == 1000.0
    assert shown.peak_memory_bytes is shown.delta is shown.rank is None
    assert shown.measured("recall_mqar") is None


def test_recall_is_each_tasks_own_at_the_rate_whose_seeds_are_best(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 2.0)
    measured = [
        *(("mqar", 1e-3, 0, 0.9), ("mqar", 1e-3, 1, 0.1), ("mqar", 1e-2, 0, 0.6)),
        *(("mqar", 1e-2, 1, 0.8), ("parity", 1e-3, 0, 0.5)),
    ]
    for task, rate, seed, recall in measured:
        trial = lab.enqueue(row.id, task=task, learning_rate=rate, seed=seed)
        metrics = {f"recall_{task}": recall, "tokens_per_s": 5.0}
        lab.finish(trial.id, TrialResult(status="done", metrics=metrics))
    shown = only(lab)
    assert shown.recall == {"mqar": pytest.approx(0.7), "parity": 0.5}
    assert shown.measured("recall_parity") == 0.5
    assert (shown.tokens_per_s, shown.n_seeds) == (1000.0, 1)


def test_rows_without_a_score_stand_below_all_others(lab: Any) -> None:
    names = ("rejected", "waiting", "worse", "deeper", "better")
    ids = {name: lab.propose(name).id for name in names}
    lab.judge(ids["rejected"], failing="causality")
    for name, score, rung in (("worse", 2.9, 0), ("deeper", 2.95, 1), ("better", 2.1, 0)):
        lab.judge(ids[name])
        lab.score(ids[name], score, rung=rung)
    shown = lab.store.queries.leaderboard(lab.run_id)
    assert [row.name for row in shown] == ["deeper", "better", "worse", "rejected", "waiting"]
    assert (shown[3].rejected_by, shown[3].reason) == ("causality", "causality broke")


def test_the_drivers_statistics_of_the_quoted_rung_are_shown(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 2.0, rung=1)
    id_ = row.id
    rows = {
        "delta": StatisticRow(architecture_id=id_, rung=1, value=-0.3, low=-0.4, high=-0.2),
        "rank": StatisticRow(architecture_id=id_, rung=1, value=2.0),
        "pareto_rank": StatisticRow(architecture_id=id_, rung=0, value=1.0),
        "tie": StatisticRow(architecture_id=id_, rung=1, value=4.0),
    }
    for name, statistic in rows.items():
        lab.store.replace_statistics(lab.run_id, name, [statistic])
    shown = only(lab)
    assert (shown.delta, shown.delta_low, shown.delta_high) == (-0.3, -0.4, -0.2)
    assert (shown.rank, shown.tie) == (2, 4)
    assert shown.pareto_rank is None  # it was computed for another rung


def test_origin_and_parents_are_shown(lab: Any) -> None:
    parents = sorted(lab.sound(origin="baseline", is_reference=True).id for _ in range(2))
    child = lab.propose(parents=[(id_, "crossover") for id_ in parents])
    shown = {row.id: row for row in lab.store.queries.leaderboard(lab.run_id)}
    assert shown[child.id].parents == tuple(parents)
    assert not shown[child.id].is_baseline
    assert shown[parents[0]].is_baseline
    assert shown[parents[0]].is_reference


def test_two_thousand_rows_agree_with_a_plain_computation(store: Store) -> None:
    run_id = store.create_run({}, {}, seed=0)
    made = random_run(run_id, 2000, random.Random(0))
    with store._database.write() as connection:
        for table, rows in made.items():
            connection.execute(insert(table), rows)
    plain = Plain(made)
    expected = {row["id"]: plain.row(row) for row in made[Architecture]}
    shown = store.queries.leaderboard(run_id)
    assert {row.id: facts_of(row) for row in shown} == expected
    order = [(row.rung is None, -(row.rung or 0), row.val_bpb or 0) for row in shown]
    assert order == sorted(order)


def random_run(run_id: str, n: int, rng: random.Random) -> dict[Any, list[dict[str, Any]]]:
    """Rows as a search would leave them: several rungs, rates and seeds, some ends missing."""
    now = datetime.now(UTC)
    made: dict[Any, list[dict[str, Any]]] = {Architecture: [], Parent: [], Trial: [], Metric: []}
    for number in range(1, n + 1):
        id_ = new_id()
        state = rng.choice(("measured", "measured", "failed", "rejected", "sound"))
        made[Architecture].append(
            {
                **{"id": id_, "run_id": run_id, "number": number, "name": f"mixer {number}"},
                **dict.fromkeys(("motivation", "expectation", "source"), "text"),
                **{"source_hash": id_, "normalised_hash": id_, "pattern": "L", "state": state},
                **{"origin": "grammar", "is_reference": False, "created_at": now},
            }
        )
        for parent in rng.sample(made[Architecture][:-1], min(number - 1, rng.randrange(3))):
            link = {"child_id": id_, "parent_id": parent["id"], "kind": "mutation"}
            made[Parent].append(link)
        for rung in range(rng.randrange(3)):
            for rate in rng.sample((1e-3, 3e-3, 1e-2), rng.randrange(1, 3)):
                for seed in range(rng.randrange(1, 3)):
                    add_trial(made, run_id, id_, (rung, rate, seed), now, rng)
    return made


def add_trial(
    made: dict[Any, list[dict[str, Any]]],
    run_id: str,
    architecture_id: str,
    key: tuple[int, float, int],
    now: datetime,
    rng: random.Random,
) -> None:
    rung, rate, seed = key
    trial = {
        **{"id": new_id(), "run_id": run_id, "architecture_id": architecture_id},
        **{"task": "corpus", "rung": rung, "learning_rate": rate, "seed": seed, "tokens": 1},
        **{"state": rng.choice(("done", "done", "done", "failed", "queued")), "epoch": 1},
        **{"attempts": 1, "queued_at": now, "finished_at": now},
    }
    made[Trial].append(trial)
    for name in ("val_bpb", "tokens_per_s"):
        value = None if rng.random() < 0.1 else rng.uniform(1, 4)
        made[Metric].append({"trial_id": trial["id"], "name": name, "step": None, "value": value})
    point = {"trial_id": trial["id"], "name": "val_bpb", "step": 5, "value": 0.0}
    made[Metric].append(point)  # a point of a curve must never be taken for the final


class Plain:
    """The leaderboard's definition once more, with loops over the rows that were stored."""

    def __init__(self, made: dict[Any, list[dict[str, Any]]]) -> None:
        self.finals = {
            (row["trial_id"], row["name"]): row["value"]
            for row in made[Metric]
            if row["step"] is None
        }
        self.trials: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for trial in made[Trial]:
            if trial["state"] == "done" and self.finals[trial["id"], "val_bpb"] is not None:
                self.trials[trial["architecture_id"]].append(trial)
        self.parents: dict[str, list[str]] = defaultdict(list)
        for link in made[Parent]:
            self.parents[link["child_id"]].append(link["parent_id"])

    def row(self, architecture: dict[str, Any]) -> tuple[Any, ...]:
        parents = tuple(sorted(self.parents[architecture["id"]]))
        trials = self.trials[architecture["id"]]
        if architecture["state"] == "rejected" or not trials:
            return (None, None, None, (), parents)
        rung = max(trial["rung"] for trial in trials)
        choices = []
        for rate in {trial["learning_rate"] for trial in trials if trial["rung"] == rung}:
            same = [t["id"] for t in trials if (t["rung"], t["learning_rate"]) == (rung, rate)]
            choices.append((fmean(self.finals[id_, "val_bpb"] for id_ in same), same))
        val_bpb, ids = min(choices)
        speeds = [self.finals[id_, "tokens_per_s"] for id_ in ids]
        known = [speed for speed in speeds if speed is not None]
        return (rung, val_bpb, fmean(known) if known else None, tuple(ids), parents)


def facts_of(row: LeaderboardRow) -> tuple[Any, ...]:
    return (row.rung, row.val_bpb, row.tokens_per_s, row.trial_ids, row.parents)


def test_rows_stand_by_bits_per_byte_whatever_the_runs_fitness_says(lab: Any) -> None:
    scored = {name: lab.sound(name) for name in ("low", "fit", "unfit")}
    for row, val_bpb in zip(scored.values(), (2.0, 2.5, 1.9), strict=True):
        lab.score(row.id, val_bpb)
    statistics = [
        StatisticRow(architecture_id=scored[name].id, rung=0, value=value)
        for name, value in (("low", 1.0), ("fit", 2.0), ("unfit", None))
    ]
    lab.store.replace_statistics(lab.run_id, "fitness", statistics)
    rows = lab.store.queries.leaderboard(lab.run_id)
    assert [row.name for row in rows] == ["unfit", "low", "fit"]
    assert [row.fitness for row in rows] == [None, 1.0, 2.0]


def test_the_interval_of_a_score_is_the_drivers(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 2.5)
    interval = StatisticRow(architecture_id=row.id, rung=0, value=2.5, low=2.4, high=2.6)
    lab.store.replace_statistics(lab.run_id, "score", [interval])
    (found,) = lab.store.queries.leaderboard(lab.run_id)
    assert (found.val_bpb_low, found.val_bpb_high) == (2.4, 2.6)
