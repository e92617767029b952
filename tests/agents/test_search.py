"""The search loop over a real store, with workers and a proposer that answer from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from linearch.agents.board import Board
from linearch.agents.cautions import cautions
from linearch.agents.finals import Finals, finals_config
from linearch.agents.intake import Intake
from linearch.agents.llm.errors import ProviderRefused
from linearch.agents.preflight import make_proposer
from linearch.agents.progress import Silent
from linearch.agents.promotion import promoted
from linearch.agents.proposers.baselines import baseline_proposals
from linearch.agents.proposers.proposal import Evidence, NothingLeft, Proposal
from linearch.agents.restore import restore_board
from linearch.agents.search import Ending, Search
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.errors import LinearchError, ProposalError
from linearch.evaluator.ray_pool import Finished, JudgeJob, TrialJob
from linearch.evaluator.results import GateResult, Judgement, TrialResult

SOURCE = """
import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None):
        return self.out(x) * {scale}, {{}}
"""


class Workers:
    """Two workers that answer at once, as `answer` says; None stands for a worker that died."""

    slots = 2

    def __init__(self, answer: Callable[[JudgeJob | TrialJob], Judgement | TrialResult | None]):
        self._answer = answer
        self._jobs: list[JudgeJob | TrialJob] = []
        self.ran: list[JudgeJob | TrialJob] = []

    @property
    def idle(self) -> int:
        return self.slots - len(self._jobs)

    def submit(self, job: JudgeJob | TrialJob) -> None:
        assert self.idle > 0
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[Finished]:
        del timeout_s
        job = self._jobs.pop(0)
        self.ran.append(job)
        value = self._answer(job)
        return [Finished(job=job, value=value, infra_error=None if value else "the worker died")]


class Script:
    """Proposes a new source each time, or what `at` says for an index."""

    concurrency = 1

    def __init__(
        self, at: dict[int, str | ProposalError] | None = None, repaired: str = ""
    ) -> None:
        self.at, self.repaired = at or {}, repaired
        self.asked: list[Evidence] = []
        self.repairs: list[tuple[str, str]] = []

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        self.asked.append(evidence)
        source = self.at.get(index, SOURCE.format(scale=f"{index}.5"))
        if isinstance(source, ProposalError):
            raise source
        return proposal(f"mixer {index}", source)

    def repair(self, failed: Proposal, check: str, reason: str) -> Proposal | None:
        self.repairs.append((check, reason))
        return proposal(f"{failed.name} mended", self.repaired) if self.repaired else None


def proposal(name: str, source: str) -> Proposal:
    return Proposal(name=name, motivation="", expectation="", source=source, origin="grammar")


def sound() -> Judgement:
    passed = GateResult(gate="causality", passed=True)
    return Judgement(results=(passed,), mlp_width=16, n_params=1000, state_bytes=64)


def unsound() -> Judgement:
    return Judgement(results=(GateResult(gate="causality", passed=False, reason="it leaks"),))


def score(job: TrialJob) -> TrialResult:
    """Better with more tokens and worse with the seed; the checkpoint tells what it came from."""
    value = 4.0 - job.spec.rung + 0.01 * job.spec.seed
    name = "val_bpb" if job.spec.task == "corpus" else "recall_mqar"
    return TrialResult(
        status="done",
        metrics={name: value, "tokens_per_s": 1000.0},
        checkpoint=f"{job.key}".encode(),
        wall_s=0.01,
        device="cpu",
    )


def all_is_well(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
    return sound() if isinstance(job, JudgeJob) else score(job)


@pytest.fixture
def config() -> RunConfig:
    return validate_config(
        {
            "baselines": ["linear_attention", "gated_deltanet"],
            "ladder": {"rung_tokens": [10, 40], "promote_fraction": 0.5},
            "recall": {"enabled": False},
            "budget": {"max_candidates": 4},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "linearch.db") as opened:
        yield opened


def search(
    store: Store,
    config: RunConfig,
    workers: Workers,
    proposer: Script,
    run_id: str | None = None,
) -> tuple[Search, str, Board]:
    run_id = run_id or store.create_run(config.model_dump(mode="json"), {}, config.seed)
    epoch = store.claim_run(run_id)
    store.requeue_orphans(run_id)
    n_rungs = len(config.ladder.rung_tokens)
    board = Board(seed=config.seed, n_rungs=n_rungs, objectives=config.objectives)
    restore_board(store, run_id, board)
    if not board.baselines:
        intake = Intake(store, run_id, board, config.gates.max_source_bytes)
        for known, is_reference in baseline_proposals(config.baselines):
            intake.admit_proposal(known, is_reference=is_reference)
    made = Search(
        config=config,
        store=store,
        run_id=run_id,
        epoch=epoch,
        board=board,
        pool=workers,  # type: ignore[arg-type]
        proposer=proposer,
        observer=Silent(),
    )
    return made, run_id, board


def run(
    store: Store, config: RunConfig, workers: Workers, proposer: Script, run_id: str | None = None
) -> tuple[Ending, str]:
    made, run_id, _ = search(store, config, workers, proposer, run_id)
    return made.run(), run_id


def test_a_search_measures_baselines_noise_and_every_wanted_candidate(
    store: Store, config: RunConfig
) -> None:
    ending, run_id = run(store, config, Workers(all_is_well), Script())
    assert ending.state == "finished"
    rows = {row.name: row for row in store.queries.leaderboard(run_id)}
    assert rows["linear_attention"].rung == rows["gated_deltanet"].rung == 1
    assert rows["gated_deltanet"].n_seeds == config.ladder.noise_seeds
    candidates = [row for row in rows.values() if not row.is_baseline]
    assert len(candidates) == 4
    reached = [trial for trial in store.trials(run_id) if trial.rung == 1]
    purposes = {
        row.name: trial.purpose
        for trial in reached
        for row in candidates
        if trial.architecture_id == row.id and trial.seed == config.seed
    }
    assert sorted(purposes.values()) == ["promoted", "promoted", "random"]  # half, and one by lot
    floors = {row.rung: row.n for row in store.queries.statistics(run_id, "noise_floor")}
    assert floors == {0: 3, 1: 3}
    assert all(row.rank is not None and row.pareto_rank is not None for row in rows.values())


def test_a_search_ends_by_measuring_the_best_and_its_rival_again(
    store: Store, config: RunConfig
) -> None:
    _, run_id = run(store, config, Workers(all_is_well), Script())
    fresh = [trial for trial in store.trials(run_id) if trial.purpose == "fresh"]
    assert {(trial.seed, trial.rung) for trial in fresh} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    names = {store.architecture(trial.architecture_id).name for trial in fresh}
    assert {"linear_attention"} == names & set(config.baselines)
    assert len(names) == config.ladder.elite + 1
    curse = store.queries.statistics(run_id, "winners_curse")
    assert curse[-1].architecture_id is None
    assert curse[-1].value == pytest.approx(-0.015)  # of seeds 1 and 2 as `score` has them
    compared = store.queries.statistics(run_id, "comparison")
    assert {row.detail["baseline"] for row in compared if row.detail} == set(config.baselines)
    assert {row.detail["n_comparisons"] for row in compared if row.detail} == {4, 8}
    assert not any(row.detail["is_better"] for row in compared if row.detail)


def test_what_is_called_fresh_leaves_out_the_first_seed_though_all_are_measured_again(
    store: Store, config: RunConfig
) -> None:
    config = validate_config({**config.model_dump(), "budget": {"max_candidates": 1}})
    _, run_id = run(store, config, Workers(all_is_well), Script())
    compared = store.queries.statistics(run_id, "comparison")
    assert [row.n for row in compared if row.detail and row.detail["is_fresh"]] == [2, 2]
    for row in compared:
        assert row.detail is not None
        assert row.detail["is_paired"]
        assert row.value == pytest.approx(0.0)  # seeds 1 and 2 on either side
        assert row.detail["unpaired"]["delta"] == pytest.approx(0.005)  # against 0, 1 and 2
    curse = store.queries.statistics(run_id, "winners_curse")
    assert [row.n for row in curse] == [2, 1]


def test_window_by_window_a_difference_holds_for_the_weights_of_the_common_seeds(
    store: Store, config: RunConfig
) -> None:
    def in_windows(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        """Windows differ much from each other; candidates are better by a twentieth on each."""
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            share = 0.95 if ".5, {}" in job.spec.source else 1.0
            val_bpb = (value.metrics["val_bpb"] or 0.0) * share
            nats = tuple(share * val_bpb * size for size in (50.0, 100.0, 300.0, 350.0))
            value = replace(value, metrics={"val_bpb": val_bpb}, window_nats=nats)
        return value

    _, run_id = run(store, config, Workers(in_windows), Script())
    details = [row.detail or {} for row in store.queries.statistics(run_id, "comparison")]
    assert details
    for detail in details:
        assert detail["n_windows"] == 4
        assert detail["windows"]["delta"] == pytest.approx(-0.05 * 3.0, abs=0.01)
        assert detail["windows"]["low"] < detail["windows"]["delta"] < detail["windows"]["high"]


def test_with_the_wilcoxon_pruner_windows_decide_who_climbs_before_and_after_a_restart(
    store: Store, config: RunConfig
) -> None:
    def in_windows(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        """Each new candidate is worse than the one before it, on every window."""
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            worse = next((n for n in range(9) if f"* {n}.5" in job.spec.source), 0)
            nats = tuple(size + worse for size in range(100, 140))
            value = replace(value, metrics={"val_bpb": 3.0 + worse / 100}, window_nats=nats)
        return value

    ladder = {**config.ladder.model_dump(), "pruner": "wilcoxon", "random_promote_fraction": 0}
    config = validate_config({**config.model_dump(), "ladder": ladder})
    made, run_id, board = search(store, config, Workers(in_windows), Script())
    made.run()
    kept = promoted(board, 0, config.ladder)
    climbed = {trial.architecture_id for trial in store.trials(run_id) if trial.rung == 1}
    assert kept == climbed & {candidate.id for candidate in board.proposals}
    assert len(kept) == 1
    again = Board(seed=config.seed, n_rungs=2, objectives=config.objectives)
    restore_board(store, run_id, again)
    assert promoted(again, 0, config.ladder) == kept


def test_a_verification_trains_from_no_seed_that_its_search_did(
    store: Store, config: RunConfig
) -> None:
    _, found = run(store, config, Workers(all_is_well), Script())
    settings = {"recall.enabled": False}
    finals = finals_config(store, Finals(run=found, top=2, seeds=3, scale=1, settings=settings))
    proposer = make_proposer(finals, store)
    _, verified = run(store, finals, Workers(all_is_well), proposer)  # type: ignore[arg-type]
    before, after = ({trial.seed for trial in store.trials(id_)} for id_ in (found, verified))
    assert before == {0, 1, 2}
    assert after == {3, 4, 5, 6}
    compared = store.queries.statistics(verified, "comparison")
    assert {row.n for row in compared} == {3}


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


def test_rows_are_sorted_by_the_runs_fitness(store: Store, config: RunConfig) -> None:
    def far_below(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        """One candidate is so far below the baseline that ASI-Arch's filter refuses it."""
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            shares = {"* 1.5": 0.89, "* 2.5": 0.95}
            share = next((shares[key] for key in shares if key in job.spec.source), 1.0)
            shifted = (value.metrics["val_bpb"] or 0.0) * share
            value = replace(value, metrics={**value.metrics, "val_bpb": shifted})
        return value

    settings = {"fitness": "asi-arch", "ladder": {"rung_tokens": [10], "elite": 0}}
    config = validate_config({**config.model_dump(), **settings})
    _, run_id = run(store, config, Workers(far_below), Script())
    rows = store.queries.leaderboard(run_id)
    assert rows[0].name == "mixer 2"
    assert rows[-1].name == "mixer 1"
    assert (rows[-1].fitness, rows[-1].rank) == (None, 1)


def test_each_rungs_ranking_is_stored_with_who_was_drawn_by_lot(
    store: Store, config: RunConfig
) -> None:
    def by_source(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            shifted = (value.metrics["val_bpb"] or 0.0) - len(job.spec.source) * 1e-4
            value = replace(value, metrics={**value.metrics, "val_bpb": shifted})
        return value

    config = validate_config({**config.model_dump(), "budget": {"max_candidates": 12}})
    _, run_id = run(store, config, Workers(by_source), Script())
    found = {
        (row.detail["population"], row.detail["coefficient"]): row
        for row in store.queries.statistics(run_id, "rank_correlation")
        if row.detail
    }
    spearman = found["all", "spearman"]
    assert spearman.value == pytest.approx(1.0)
    assert spearman.detail is not None
    assert spearman.detail["n_drawn"] >= 1
    assert spearman.detail["n_stood_for"] == 2 + 12
    # One of five pruned was drawn and weighs five: ten that count as six.
    assert (spearman.n, spearman.detail["n_pruned"], spearman.detail["n_drawn"]) == (10, 5, 1)
    assert spearman.detail["n_effective"] == pytest.approx(14**2 / (9 + 5**2))
    assert spearman.detail["verdict"] == "too few to say"
    assert spearman.detail["n_needed"] == 6
    assert ("candidates", "kendall") in found


def test_a_later_rung_continues_from_the_checkpoint_below_it(
    store: Store, config: RunConfig
) -> None:
    workers = Workers(all_is_well)
    run(store, config, workers, Script())
    trials = {job.key: job.spec for job in workers.ran if isinstance(job, TrialJob)}
    climbed = [spec for spec in trials.values() if spec.rung == 1]
    assert climbed
    for spec in climbed:
        assert spec.checkpoint is not None
        below = trials[spec.checkpoint.decode()]
        assert (below.source, below.seed, below.rung) == (spec.source, spec.seed, 0)


def test_rejected_candidates_are_stored_with_their_reason_and_replaced(
    store: Store, config: RunConfig
) -> None:
    def leaks(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        is_leaky = isinstance(job, JudgeJob) and "* 1.5" in job.source
        return unsound() if is_leaky else all_is_well(job)

    at: dict[int, str | ProposalError] = {
        0: "import os",
        2: SOURCE.format(scale="7"),
        3: SOURCE.format(scale="7"),
        4: ProposalError("nothing came to mind"),
    }
    _, run_id = run(store, config, Workers(leaks), Script(at))
    funnel = store.queries.funnel(run_id)
    assert funnel.rejected == {"source": 1, "causality": 1}
    assert (funnel.duplicates, funnel.invalid) == (1, 1)
    assert funnel.measured == config.budget.max_candidates
    rejected = {row.rejected_by: row.reason for row in store.queries.leaderboard(run_id)}
    assert rejected["causality"] == "it leaks"


def test_a_failed_proposal_gets_one_repair_round_with_the_reason(
    store: Store, config: RunConfig
) -> None:
    proposer = Script({0: "import os"}, repaired=SOURCE.format(scale="99"))
    _, run_id = run(store, config, Workers(all_is_well), proposer)
    ((check, reason),) = proposer.repairs
    assert check == "source"
    assert "Mixer" in reason or "os" in reason
    mended = store.queries.architecture("mixer 0 mended", run_id)
    assert [(parent.name, parent.kind) for parent in mended.parents] == [("mixer 0", "repair")]


def test_proposers_see_measurements_and_failures(store: Store, config: RunConfig) -> None:
    proposer = Script({0: "import os"})
    run(store, config, Workers(all_is_well), proposer)
    last = proposer.asked[-1]
    assert {row.name for row in last.baselines} == set(config.baselines)
    assert any(row.rung_0_val_bpb == 4.0 for row in last.candidates)
    assert any(row.state == "rejected" and row.reason for row in last.candidates)


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


def test_baselines_and_grammar_candidates_name_their_family(
    store: Store, config: RunConfig
) -> None:
    from linearch.agents.proposers.grammar import GrammarProposer

    nothing_yet = Evidence(candidates=(), baselines=(), objectives=("val_bpb",))
    proposer = GrammarProposer(seed=0, n_layers=2)
    made = [proposer.propose(nothing_yet, index) for index in range(5)]
    assert len({found.family for found in made}) == 5
    _, run_id = run(store, config, Workers(all_is_well), Script())
    families = {row.name: row.family for row in store.queries.leaderboard(run_id)}
    assert families["gated_deltanet"] == "gated delta, scalar decay"


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


def test_the_rates_of_a_grid_are_not_taken_for_noise(store: Store, config: RunConfig) -> None:
    def by_rate(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        value = all_is_well(job)
        if isinstance(value, TrialResult) and isinstance(job, TrialJob):
            shifted = (value.metrics["val_bpb"] or 0.0) + job.spec.learning_rate
            value = replace(value, metrics={**value.metrics, "val_bpb": shifted})
        return value

    config = validate_config({**config.model_dump(), "training": {"learning_rates": [0.1, 0.9]}})
    _, run_id = run(store, config, Workers(by_rate), Script())
    floors = {row.rung: row for row in store.queries.statistics(run_id, "noise_floor")}
    assert {rung: floor.n for rung, floor in floors.items()} == {0: 3, 1: 3}
    assert floors[0].value == pytest.approx(0.01)  # the seeds' step in `score`
    (caution,) = cautions(store, run_id)  # the lower the better, so widening ended at the edge
    assert "edge of the grid" in caution
    assert "gated_deltanet (0.00123)" in caution


def test_a_score_too_good_to_be_true_does_not_climb_and_does_not_lead(
    store: Store, config: RunConfig
) -> None:
    def one_miracle(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        value = all_is_well(job)
        is_miracle = isinstance(job, TrialJob) and "* 1.5" in job.spec.source
        if is_miracle and isinstance(value, TrialResult):
            value = replace(value, metrics={**value.metrics, "val_bpb": 0.4})
        return value

    config = validate_config({**config.model_dump(), "ladder": {"promote_fraction": 1.0}})
    workers = Workers(one_miracle)
    ending, run_id = run(store, config, workers, Script())
    assert ending.state == "finished"
    row = store.queries.architecture("mixer 1", run_id)
    assert row.architecture.state == "quarantined"
    assert "below the best baseline" in (row.architecture.reason or "")
    assert {item.trial.rung for item in row.trials} == {0}
    leaderboard = store.queries.leaderboard(run_id)
    assert leaderboard[0].name != "mixer 1"
    assert {found.name: found.rank for found in leaderboard}["mixer 1"] is None
    assert store.queries.funnel(run_id).quarantined == 1


@pytest.mark.parametrize("status", ["noncausal", "unsound"])
def test_what_a_trial_found_out_is_rejected_and_may_be_repaired(
    status: Literal["noncausal", "unsound"], store: Store, config: RunConfig
) -> None:
    def found_out(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        if isinstance(job, TrialJob) and "* 1.5" in job.spec.source and job.spec.rung == 1:
            return TrialResult(status=status, reason="its trained weights fail")
        return all_is_well(job)

    config = validate_config({**config.model_dump(), "ladder": {"promote_fraction": 1.0}})
    proposer = Script()
    _, run_id = run(store, config, Workers(found_out), proposer)
    row = store.queries.architecture("mixer 1", run_id).architecture
    assert (row.state, row.rejected_by) == ("rejected", status)
    assert proposer.repairs == [(status, "its trained weights fail")]


def test_workers_that_cannot_confine_candidates_end_the_search_with_the_reason(
    store: Store, config: RunConfig
) -> None:
    refusal = "Candidates cannot be confined here (landlock: this kernel has none)"

    def refuses(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        assert isinstance(job, JudgeJob)
        return Judgement(results=(), infra_error=refusal)

    with pytest.raises(LinearchError, match="landlock: this kernel has none"):
        run(store, config, Workers(refuses), Script())
