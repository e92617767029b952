"""How a search ends, breaks off and goes on: out of time, out of ideas, workers that die."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_search import (
    SOURCE,
    Clock,
    Script,
    TimedWorkers,
    Workers,
    all_is_well,
    proposal,
    run,
    search,
    sound,
)

from linearch.agents.intake import Intake
from linearch.agents.llm.errors import ProviderRefused
from linearch.agents.proposers.proposal import Evidence, NothingLeft, Proposal
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.errors import LinearchError, ProposalError
from linearch.evaluator.ray_pool import JudgeJob, TrialJob
from linearch.evaluator.results import Judgement, TrialResult


def test_the_last_of_the_time_goes_to_fresh_seeds(store: Store, config: RunConfig) -> None:
    def slow(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            value = replace(value, wall_s=50.0 + 150.0 * job.spec.rung)
        return value

    settings = {"budget": {"max_minutes": 10, "max_candidates": 50}}
    config = validate_config({**config.model_dump(), **settings})
    ending, run_id = run(store, config, Workers(slow), Script())
    assert (ending.state, ending.budget_is_spent) == ("finished", True)
    assert "10 minutes" in ending.reason
    trials = store.trials(run_id)
    assert sum(trial.purpose == "fresh" for trial in trials) >= 4
    assert 0 < store.queries.funnel(run_id).measured < 50
    last_entry = max(trial.id for trial in trials if trial.purpose in {"entry", "promoted"})
    assert all(trial.id > last_entry for trial in trials if trial.purpose == "fresh")
    climbs = {(trial.architecture_id, trial.seed) for trial in trials if trial.purpose == "fresh"}
    assert sum(trial.purpose == "fresh" for trial in trials) == 2 * len(climbs)  # none is half done


@pytest.mark.parametrize(("minutes", "n_ahead"), [(6, 9), (7, 14)])
def test_the_best_of_a_rung_climbs_though_its_score_came_just_before_the_close(
    store: Store, config: RunConfig, monkeypatch: pytest.MonkeyPatch, minutes: int, n_ahead: int
) -> None:
    clock, best_name = Clock(), f"mixer {n_ahead}"
    monkeypatch.setattr("linearch.agents.search.time.monotonic", clock)

    def timed(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        if isinstance(job, JudgeJob):
            return sound()
        rung, is_best = job.spec.rung, f"* {n_ahead}.5" in job.spec.source
        metrics = {"val_bpb": 4.0 - rung - 0.5 * is_best}
        return TrialResult(status="done", metrics=metrics, wall_s=(10.0, 30.0)[rung])

    settings = {"budget": {"max_minutes": minutes, "max_candidates": 50}}
    config = validate_config({**config.model_dump(), **settings})
    made, run_id, board = search(store, config, TimedWorkers(clock, timed), Script())
    intake = Intake(store, run_id, board, config.gates.max_source_bytes)
    for number in range(40):  # more than there is time for
        intake.admit_proposal(proposal(f"mixer {number}", SOURCE.format(scale=f"{number}.5")))
    made.run()
    best = next(one for one in board.proposals if one.name == best_name)
    climb = best.best(1, config.seed)
    assert climb is not None
    assert clock.now_s <= 60 * minutes
    trials = store.trials(run_id)
    assert all(trial.id > climb.id for trial in trials if trial.purpose == "fresh")


def test_a_worker_that_dies_costs_an_attempt_and_not_the_candidate(
    store: Store, config: RunConfig
) -> None:
    deaths = iter([True, False, True, True, False])

    def dies_sometimes(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        return None if next(deaths, False) else all_is_well(job)

    _, run_id = run(store, config, Workers(dies_sometimes), Script())
    assert all(row.val_bpb is not None for row in store.queries.leaderboard(run_id))


def test_a_trial_that_always_kills_its_worker_is_given_up(store: Store, config: RunConfig) -> None:
    def poison(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        is_poison = isinstance(job, TrialJob) and "* 0.5" in job.spec.source
        return None if is_poison else all_is_well(job)

    ending, run_id = run(store, config, Workers(poison), Script())
    assert ending.state == "finished"
    row = store.queries.architecture("mixer 0", run_id)
    (trial,) = row.trials
    assert (trial.trial.status, trial.trial.attempts) == ("infra", config.workers.max_attempts)
    assert row.architecture.state == "failed"


def test_an_interrupted_search_resumes_without_losing_or_doubling_a_trial(
    store: Store, config: RunConfig
) -> None:
    first = Workers(all_is_well)
    made, run_id, _ = search(store, config, first, Script())
    first._answer = lambda job: (
        made.interrupt() if len(first.ran) == 6 else None,
        all_is_well(job),
    )[1]
    assert made.run().state == "interrupted"
    assert len(first.ran) < 12
    second = Workers(all_is_well)
    ending, _ = run(store, config, second, Script(), run_id)
    assert ending.state == "finished"
    keys = [job.key for job in [*first.ran, *second.ran]]
    assert len(keys) == len(set(keys))
    assert store.queries.funnel(run_id).measured == config.budget.max_candidates


def test_a_killed_search_repeats_only_what_was_running(store: Store, config: RunConfig) -> None:
    class Killed(BaseException):
        pass

    first = Workers(all_is_well)
    made, run_id, _ = search(store, config, first, Script())

    def dies_with_its_driver(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        if len(first.ran) == 8:
            raise Killed
        return all_is_well(job)

    first._answer = dies_with_its_driver
    with pytest.raises(Killed):
        made.run()
    done_before = {trial.id for trial in store.trials(run_id) if trial.state == "done"}
    second = Workers(all_is_well)
    run(store, config, second, Script(), run_id)
    repeated = {job.key.split(" ")[-1] for job in second.ran if isinstance(job, TrialJob)}
    assert done_before
    assert not done_before & repeated
    assert all(trial.state == "done" for trial in store.trials(run_id))


def test_a_search_out_of_time_starts_nothing_more(store: Store, config: RunConfig) -> None:
    config = validate_config(
        {**config.model_dump(), "budget": {"max_candidates": 4, "max_minutes": 1e-9}}
    )
    workers = Workers(all_is_well)
    ending, _ = run(store, config, workers, Script())
    assert ending.budget_is_spent
    assert not workers.ran


def test_a_proposer_without_ideas_ends_the_search(store: Store, config: RunConfig) -> None:
    class Dry(Script):
        def propose(self, evidence: Evidence, index: int) -> Proposal:
            raise ProposalError("nothing left")

    ending, run_id = run(store, config, Workers(all_is_well), Dry())
    assert "in a row" in ending.reason
    assert store.queries.funnel(run_id).baselines_measured == 2


def test_a_proposer_with_nothing_left_is_not_asked_again(store: Store, config: RunConfig) -> None:
    class Two(Script):
        def propose(self, evidence: Evidence, index: int) -> Proposal:
            if index > 1:
                raise NothingLeft("both were proposed")
            return super().propose(evidence, index)

    proposer = Two()
    ending, run_id = run(store, config, Workers(all_is_well), proposer)
    assert ending.state == "finished"
    funnel = store.queries.funnel(run_id)
    assert (funnel.measured, funnel.invalid) == (2, 0)
    fresh = [trial for trial in store.trials(run_id) if trial.purpose == "fresh"]
    assert fresh


def test_machinery_that_always_fails_ends_the_search_with_what_to_do(
    store: Store, config: RunConfig
) -> None:
    with pytest.raises(LinearchError, match="linearch doctor"):
        run(store, config, Workers(lambda job: None), Script())


def test_the_last_candidate_is_trained_though_its_gates_ended_last(
    store: Store, config: RunConfig
) -> None:
    config = validate_config({**config.model_dump(), "budget": {"max_candidates": 1}})
    _, run_id = run(store, config, Workers(all_is_well), Script())
    assert store.queries.funnel(run_id).measured == 1


def test_time_that_nothing_fits_into_is_not_waited_for(store: Store, config: RunConfig) -> None:
    """The recall probe needs longer than is left, so the search ends when the rest is done."""

    def slow(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        value = all_is_well(job)
        return replace(value, wall_s=100.0) if isinstance(value, TrialResult) else value

    settings = {"recall": {"train_tokens": 10_000}, "budget": {"max_minutes": 10}}
    config = validate_config({**config.model_dump(), **settings})
    ending, run_id = run(store, config, Workers(slow), Script())
    assert "fits" in ending.reason
    assert ending.elapsed_s < 60
    assert all(trial.task == "corpus" for trial in store.trials(run_id))


def test_an_endpoint_that_refuses_ends_the_run_as_failed_and_resumable(
    store: Store, config: RunConfig
) -> None:
    proposer = Script({0: ProviderRefused("no credit left")})
    ending, _ = run(store, config, Workers(all_is_well), proposer)
    assert ending.state == "failed"
    assert "no credit left" in ending.reason


def test_workers_that_cannot_confine_candidates_end_the_search_with_the_reason(
    store: Store, config: RunConfig
) -> None:
    refusal = "Candidates cannot be confined here (landlock: this kernel has none)"

    def refuses(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        assert isinstance(job, JudgeJob)
        return Judgement(results=(), infra_error=refusal)

    with pytest.raises(LinearchError, match="landlock: this kernel has none"):
        run(store, config, Workers(refuses), Script())
