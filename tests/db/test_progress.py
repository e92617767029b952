from __future__ import annotations

from typing import Any

import pytest

from linearch.agents.proposers.proposal import LLMCall
from linearch.db import DUPLICATE, INVALID
from linearch.errors import StoreError
from linearch.evaluator.results import TrialResult


def test_the_funnel_counts_each_candidate_once(lab: Any) -> None:
    lab.score(lab.sound("gla", origin="baseline").id, 2.5)
    lab.propose("in gates")
    lab.judge(lab.propose("leaks").id, failing="causality")
    lab.store.reject(lab.propose("imports os").id, "source", "imports os")
    lab.score(lab.sound("measured").id, 2.4)
    lab.enqueue(lab.sound("queued").id)
    lab.sound("promoted nowhere")
    lab.finish(lab.enqueue(lab.sound("failed").id).id, TrialResult(status="oom"))
    leak = TrialResult(status="noncausal", reason="prefixes differ")
    lab.finish(lab.enqueue(lab.sound("found out").id).id, leak)
    for kind in (DUPLICATE, DUPLICATE, INVALID, "note"):
        lab.store.add_event(lab.run_id, kind)
    funnel = lab.store.queries.funnel(lab.run_id)
    assert (funnel.proposed, funnel.duplicates, funnel.invalid) == (8 + 3, 2, 1)
    assert funnel.in_gates == 1
    assert funnel.rejected == {"causality": 1, "source": 1, "noncausal": 1}
    assert (funnel.sound, funnel.training, funnel.measured, funnel.failed) == (4, 1, 1, 1)
    assert (funnel.baselines, funnel.baselines_measured) == (1, 1)


def test_the_best_so_far_never_rises_and_leaves_baselines_out(lab: Any) -> None:
    lab.score(lab.sound("gla", origin="baseline").id, 1.0)
    lab.judge(lab.propose("rejected").id, failing="causality")
    for name, score in (("a", 2.5), ("b", 2.7), ("c", 2.2)):
        lab.score(lab.sound(name).id, score)
    points = lab.store.queries.best_so_far(lab.run_id)
    assert [(point.n, point.name, point.val_bpb) for point in points] == [
        (1, "a", 2.5),
        (2, "b", 2.7),
        (3, "c", 2.2),
    ]
    assert [point.best_val_bpb for point in points] == [2.5, 2.5, 2.2]


def test_the_best_so_far_compares_within_one_rung(lab: Any) -> None:
    first, second = lab.sound("first"), lab.sound("second")
    lab.score(first.id, 2.0, rung=0)
    lab.score(second.id, 3.0, rung=0)
    lab.score(first.id, 2.8, rung=1)
    assert [point.val_bpb for point in lab.store.queries.best_so_far(lab.run_id)] == [2.8]
    lower = lab.store.queries.best_so_far(lab.run_id, rung=0)
    assert [point.best_val_bpb for point in lower] == [2.0, 2.0]


def test_an_unmeasured_run_has_no_best(lab: Any) -> None:
    lab.sound()
    assert lab.store.queries.best_so_far(lab.run_id) == ()


def test_the_lineage_links_parents_to_children_with_their_scores(lab: Any) -> None:
    root = lab.sound("root", origin="baseline")
    lab.score(root.id, 2.5)
    child = lab.propose("child", parents=[(root.id, "mutation")])
    lineage = lab.store.queries.lineage(lab.run_id)
    assert [(node.name, node.rung, node.val_bpb) for node in lineage.nodes] == [
        ("root", 0, 2.5),
        ("child", None, None),
    ]
    (edge,) = lineage.edges
    assert (edge.parent_id, edge.child_id, edge.kind) == (root.id, child.id, "mutation")


def test_only_sources_that_passed_everything_are_trusted(lab: Any) -> None:
    lab.sound(source_hash="sound")
    lab.score(lab.sound(source_hash="measured").id, 2.0)
    lab.finish(lab.enqueue(lab.sound(source_hash="failed").id).id, TrialResult(status="oom"))
    lab.propose(source_hash="unjudged")
    lab.judge(lab.propose(source_hash="leaks").id, failing="causality")
    lab.store.reject(lab.sound(source_hash="rejected later").id, "novelty", "same behaviour")
    leak = TrialResult(status="noncausal", reason="prefixes differ")
    lab.finish(lab.enqueue(lab.sound(source_hash="found out").id).id, leak)
    lab.run_id = lab.store.create_run({}, {}, seed=1)
    lab.sound(source_hash="found out")  # passed again, but is known to leak
    lab.sound(source_hash="leaks")  # another width, say, made it pass
    trusted = lab.store.queries.trusted_hashes()
    assert trusted == {"sound", "measured", "failed", "leaks"}


def test_gpu_time_counts_by_the_share_that_was_held(lab: Any) -> None:
    row = lab.sound()
    for seed, (gpus, device) in enumerate([(0.25, "cuda:0"), (None, "cuda:0"), (None, "cpu")]):
        trial = lab.enqueue(row.id, seed=seed)
        epoch = lab.store.start_trial(trial.id, gpus=gpus)
        lab.store.finish_trial(trial.id, epoch, TrialResult(status="done", wall_s=8, device=device))
    lab.sound(origin="baseline")
    spent = lab.store.queries.budget_spent(lab.run_id)
    assert (spent.gpu_seconds, spent.usd, spent.candidates) == (2.0 + 8.0, None, 1)


def test_dollars_are_the_sum_of_the_known_costs(lab: Any) -> None:
    for cost in (0.5, None, 0.25):
        call = LLMCall(
            **{"role": "proposer", "model": "gpt", "prompt": "p", "reply": "r"},
            **{"input_tokens": 1, "output_tokens": 1, "cost_usd": cost, "latency_s": 1.0},
        )
        lab.store.add_llm_calls(lab.run_id, [call])
    assert lab.store.queries.budget_spent(lab.run_id).usd == 0.75


def test_the_change_token_changes_with_every_write_but_heartbeats(lab: Any) -> None:
    store, seen = lab.store, set()

    def changed() -> bool:
        token = store.queries.change_token(lab.run_id)
        is_new = token not in seen
        seen.add(token)
        return is_new

    assert changed()
    row = lab.propose()
    assert changed()
    lab.judge(row.id)
    assert changed()
    trial = lab.enqueue(row.id)
    assert changed()
    epoch = store.start_trial(trial.id)
    assert changed()
    store.finish_trial(trial.id, epoch, TrialResult(status="done", metrics={"val_bpb": 2.0}))
    assert changed()
    store.replace_statistics(lab.run_id, "delta", [])
    assert changed()
    run_epoch = store.claim_run(lab.run_id)
    assert changed()
    store.heartbeat(lab.run_id, run_epoch, 1.0)
    store.heartbeat_trial(trial.id, epoch)
    assert not changed()
    store.create_run({}, {}, seed=1)
    assert not changed()
    everything = store.queries.change_token()
    store.add_event(lab.run_id, "note")
    assert store.queries.change_token() != everything


def test_an_architecture_is_found_by_id_by_its_start_and_by_name(lab: Any) -> None:
    row = lab.propose("delta, gated")
    find = lab.store.queries.find_architecture
    assert find(row.id) == find(row.id[:20].lower()) == find("delta, gated") == row.id


def test_a_name_means_the_newest_run_unless_one_is_given(lab: Any) -> None:
    old_run, old = lab.run_id, lab.propose("gla")
    lab.run_id = lab.store.create_run({}, {}, seed=1)
    new = lab.propose("gla")
    assert lab.store.queries.find_architecture("gla") == new.id
    assert lab.store.queries.find_architecture("gla", old_run) == old.id


def test_unknown_and_ambiguous_architectures_are_answered_with_ids(lab: Any) -> None:
    find = lab.store.queries.find_architecture
    with pytest.raises(StoreError, match="run launch-search first"):
        find("gla")
    rows = [lab.propose("twin") for _ in range(2)]
    with pytest.raises(
        StoreError, match=f"several architectures: {rows[0].id} .twin., {rows[1].id}"
    ):
        find("twin")
    with pytest.raises(StoreError, match=f"no architecture '%'.*newest are {rows[1].id} .twin."):
        find("%")
    with pytest.raises(StoreError, match="no architecture ''"):
        find("")


def test_sources_are_found_by_id_and_by_hash(lab: Any) -> None:
    first, second = lab.propose(source_hash="same"), lab.propose(source_hash="same")
    queries = lab.store.queries
    assert queries.architecture_by_hash("same") == second
    assert queries.architecture_by_hash("other") is None
    assert queries.architectures_by_id([first.id, "nobody"]) == {first.id: first}


def test_children_and_parents_are_each_others_mirror(lab: Any) -> None:
    parent = lab.sound("parent")
    child = lab.propose("child", parents=[(parent.id, "inspiration")])
    (relative,) = lab.store.queries.architecture(parent.id).children
    assert (relative.id, relative.name, relative.kind) == (child.id, "child", "inspiration")
    (relative,) = lab.store.queries.architecture(child.id).parents
    assert (relative.id, relative.state) == (parent.id, "sound")
