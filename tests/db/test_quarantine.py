"""A score too good to be believed is out of every ranking until an audit has released it."""

from __future__ import annotations

from typing import Any

import pytest

from linearch.errors import StoreError
from linearch.evaluator.results import TrialResult


def test_a_quarantined_architecture_keeps_its_reason_and_loses_its_place(lab: Any) -> None:
    suspect, honest = lab.sound("suspect"), lab.sound("honest")
    lab.score(suspect.id, 0.9)
    lab.score(honest.id, 2.5)
    row = lab.store.quarantine(suspect.id, "0.9 bits per byte, and lzma reaches 1.8")
    assert (row.state, row.rejected_by) == ("quarantined", None)
    first, last = lab.store.queries.leaderboard(lab.run_id)
    assert (first.name, first.val_bpb) == ("honest", 2.5)
    assert (last.val_bpb, last.rank, last.trial_id) == (None, None, None)
    assert last.reason == "0.9 bits per byte, and lzma reaches 1.8"
    assert [point.name for point in lab.store.queries.best_so_far(lab.run_id)] == ["honest"]
    nodes = {node.name: node.val_bpb for node in lab.store.queries.lineage(lab.run_id).nodes}
    assert nodes == {"suspect": None, "honest": 2.5}
    assert lab.store.queries.trusted_hashes() == {honest.source_hash}
    funnel = lab.store.queries.funnel(lab.run_id)
    assert (funnel.sound, funnel.measured, funnel.quarantined) == (2, 1, 1)


def test_a_source_that_another_run_holds_in_quarantine_is_not_trusted(lab: Any) -> None:
    here = lab.sound("here")
    lab.score(here.id, 2.5)
    assert here.source_hash in lab.store.queries.trusted_hashes()
    lab.run_id = lab.store.create_run({}, {}, seed=1)
    there = lab.sound("there", source_hash=here.source_hash)
    lab.store.quarantine(there.id, "too good")
    assert lab.store.queries.trusted_hashes() == frozenset()


def test_later_scores_do_not_end_a_quarantine(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 0.9)
    lab.store.quarantine(row.id, "too good")
    lab.score(row.id, 2.9, rung=1)
    assert lab.store.architecture(row.id).state == "quarantined"


def test_a_trial_that_finds_it_out_rejects_it_from_quarantine(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 0.9)
    lab.store.quarantine(row.id, "too good")
    trial = lab.enqueue(row.id, rung=1)
    lab.finish(trial.id, TrialResult(status="unsound", reason="its rows see each other"))
    found = lab.store.architecture(row.id)
    assert (found.state, found.rejected_by) == ("rejected", "unsound")
    assert lab.store.quarantine(row.id, "too good").state == "rejected"


def test_a_release_is_for_good(lab: Any) -> None:
    row = lab.sound()
    lab.score(row.id, 0.9)
    lab.store.quarantine(row.id, "too good")
    released = lab.store.release(row.id)
    assert (released.state, released.reason) == ("measured", None)
    assert released.released_at is not None
    assert lab.store.quarantine(row.id, "too good again").state == "measured"
    assert lab.store.queries.leaderboard(lab.run_id)[0].val_bpb == 0.9


@pytest.mark.parametrize("state", ["sound", "measured", "rejected"])
def test_only_what_is_in_quarantine_can_be_released(state: str, lab: Any) -> None:
    row = lab.judge(lab.propose().id, "causality" if state == "rejected" else None)
    if state == "measured":
        lab.score(row.id, 2.5)
    with pytest.raises(StoreError, match="not in quarantine"):
        lab.store.release(row.id)
