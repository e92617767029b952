"""What a search over a real store measures, tells and promotes; its workers follow a script."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from scripted_search import SOURCE, Script, Workers, all_is_well, run, search, unsound

from linearch.agents.board import Board
from linearch.agents.cautions import cautions
from linearch.agents.finals import Finals, finals_config
from linearch.agents.preflight import make_proposer
from linearch.agents.promotion import promoted
from linearch.agents.proposers.proposal import Evidence
from linearch.agents.restore import restore_board
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.errors import ProposalError
from linearch.evaluator.ray_pool import JudgeJob, TrialJob
from linearch.evaluator.results import Judgement, TrialResult


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


def test_rows_stand_in_the_order_of_their_ranks_and_finalists_in_that_of_the_fitness(
    store: Store, config: RunConfig
) -> None:
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
    assert [row.name for row in rows[:2]] == ["mixer 1", "mixer 2"]
    assert [row.rank for row in rows] == sorted(row.rank or 0 for row in rows)
    assert rows[0].fitness is None
    finalists = finals_config(store, Finals(run=run_id)).proposer.finalists
    assert finalists[0] == rows[1].id
    assert rows[0].id not in finalists


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


def diverges(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
    """One candidate's first training does, and another's second, each after its cooldown began; a
    third's second before that."""
    if isinstance(job, JudgeJob):
        return all_is_well(job)
    ends = {("* 0.5", 0): b"first", ("* 1.5", 1): b"second", ("* 2.5", 1): None}
    for (which, rung), left in ends.items():
        if which in job.spec.source and job.spec.rung == rung:
            return TrialResult(status="diverged", metrics={"last_step": 9}, checkpoint=left)
    return all_is_well(job)


def kept_checkpoints(store: Store, run_id: str) -> set[tuple[str, int]]:
    """Names and rungs of the candidates' trials that one could go on from, failed or not."""
    return {
        (store.architecture(trial.architecture_id).name, trial.rung)
        for trial in store.trials(run_id)
        if trial.checkpoint_hash is not None and trial.seed == 0
    }


def test_what_failed_trainings_left_is_freed_when_the_run_has_finished(
    store: Store, config: RunConfig
) -> None:
    ladder = {**config.ladder.model_dump(), "promote_fraction": 1.0, "elite": 0}
    config = validate_config({**config.model_dump(), "ladder": ladder})
    workers = Workers(diverges)
    made, run_id, _ = search(store, config, workers, Script())

    def interrupts_at_the_end(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        if isinstance(job, TrialJob) and "* 3.5" in job.spec.source and job.spec.rung == 1:
            made.interrupt()
        return diverges(job)

    workers._answer = interrupts_at_the_end
    assert made.run().state == "interrupted"
    kept = kept_checkpoints(store, run_id)
    assert {("mixer 0", 0), ("mixer 1", 1), ("mixer 2", 0)} <= kept
    assert ("mixer 1", 0) not in kept  # it left a later one
    ending, _ = run(store, config, Workers(diverges), Script(), run_id)
    assert ending.state == "finished"
    kept = kept_checkpoints(store, run_id)
    assert {name for name, _ in kept if name.startswith("mixer")} == {"mixer 3"}
    failed = [trial for trial in store.trials(run_id) if trial.state == "failed"]
    assert [trial.status for trial in failed] == 3 * ["diverged"]
    blobs = [file for file in store.blobs.folder.rglob("*") if file.is_file()]
    assert len(blobs) == len({trial.checkpoint_hash for trial in store.trials(run_id)} - {None})


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


def test_a_baseline_that_is_rejected_is_missed_aloud(store: Store, config: RunConfig) -> None:
    def one_is_unsound(job: JudgeJob | TrialJob) -> Judgement | TrialResult | None:
        is_meant = isinstance(job, JudgeJob) and "retention" in job.source.casefold()
        return unsound() if is_meant else all_is_well(job)

    config = validate_config({**config.model_dump(), "baselines": ["retnet", "gated_deltanet"]})
    _, run_id = run(store, config, Workers(one_is_unsound), Script())
    assert cautions(store, run_id)[0] == "The baseline retnet has no score here: it leaks"
