from __future__ import annotations

from typing import Any

import pytest

from linearch.db import DuplicateArchitecture
from linearch.errors import StoreError
from linearch.evaluator.results import GateResult, Judgement


def test_an_architecture_is_stored_as_it_was_proposed(lab: Any) -> None:
    parent = lab.sound("parent")
    row = lab.propose(
        "child",
        genome={"update": "delta"},
        family="delta",
        parents=((parent.id, "mutation"),),
        is_reference=True,
    )
    assert row == lab.store.architecture(row.id)
    assert (row.number, row.state, row.genome, row.family) == (
        2,
        "proposed",
        {"update": "delta"},
        "delta",
    )
    assert row.is_reference
    assert not row.is_baseline
    detail = lab.store.queries.architecture(row.id)
    assert [(kin.id, kin.kind) for kin in detail.parents] == [(parent.id, "mutation")]


def test_missing_sizes_and_genomes_are_none(lab: Any) -> None:
    row = lab.propose()
    assert row.genome is row.n_params is row.state_bytes is row.state_bytes_at is None


def test_the_same_normalised_source_is_refused_within_a_run(lab: Any) -> None:
    first = lab.propose(normalised_hash="same")
    with pytest.raises(DuplicateArchitecture) as caught:
        lab.propose(normalised_hash="same")
    assert caught.value.existing_id == first.id
    assert len(lab.store.architectures(lab.run_id)) == 1
    lab.run_id = lab.store.create_run({}, {}, seed=1)
    assert lab.propose(normalised_hash="same").number == 1


def test_a_duplicate_leaves_no_gap_in_the_numbers(lab: Any) -> None:
    lab.propose(normalised_hash="same")
    with pytest.raises(DuplicateArchitecture):
        lab.propose(normalised_hash="same")
    assert lab.propose().number == 2


def test_a_judgement_is_stored_with_its_evidence_in_order(lab: Any) -> None:
    row = lab.judge(lab.propose().id, failing="streaming")
    assert (row.state, row.rejected_by, row.reason) == ("rejected", "streaming", "streaming broke")
    assert (row.mlp_width, row.n_params, row.state_bytes) == (172, 119_808, 16_384)
    gates = lab.store.queries.architecture(row.id).gates
    assert [(gate.gate, gate.passed, gate.sandbox) for gate in gates] == [
        ("causality", True, "confined"),
        ("streaming", False, "confined"),
    ]


def test_a_second_judgement_replaces_the_first(lab: Any) -> None:
    row = lab.judge(lab.propose().id, failing="causality")
    row = lab.judge(row.id)
    assert (row.state, row.rejected_by, row.reason) == ("sound", None, None)
    assert len(lab.store.queries.architecture(row.id).gates) == 2


@pytest.mark.parametrize(
    "broken",
    [
        Judgement(results=()),
        Judgement(results=(GateResult(gate="build", passed=True),), infra_error="worker died"),
    ],
)
def test_a_judgement_that_broke_off_changes_nothing(lab: Any, broken: Judgement) -> None:
    row = lab.propose()
    with pytest.raises(ValueError, match="no judgement"):
        lab.store.record_judgement(row.id, broken)
    assert lab.store.architecture(row.id) == row


def test_a_check_before_the_gates_rejects_with_its_reason(lab: Any) -> None:
    row = lab.propose()
    lab.store.reject(row.id, "source", "imports os")
    row = lab.store.architecture(row.id)
    assert (row.state, row.rejected_by, row.reason) == ("rejected", "source", "imports os")


def test_architectures_are_listed_by_state(lab: Any) -> None:
    proposed, sound = lab.propose(), lab.sound()
    found = lab.store.architectures(lab.run_id, states=["proposed"])
    assert [row.id for row in found] == [proposed.id]
    assert [row.id for row in lab.store.architectures(lab.run_id)] == [proposed.id, sound.id]


def test_unknown_architectures_and_parents_are_refused(lab: Any) -> None:
    with pytest.raises(StoreError, match="no architecture 'nobody'"):
        lab.store.reject("nobody", "source", "?")
    with pytest.raises(StoreError, match="no architecture 'nobody'"):
        lab.propose(parents=(("nobody", "mutation"),))
    assert lab.store.architectures(lab.run_id) == ()


def test_the_runs_of_architectures_are_named_once_each(lab: Any) -> None:
    first, second = lab.propose("first"), lab.propose("second")
    lab.run_id = lab.store.create_run({}, {}, 0)
    elsewhere = lab.propose("elsewhere")
    assert lab.store.queries.runs_of([first.id, "second"]) == {second.run_id}
    assert lab.store.queries.runs_of([first.id, elsewhere.id]) == {first.run_id, lab.run_id}
    assert lab.store.queries.runs_of([]) == set()
    with pytest.raises(StoreError, match="no architecture 'neither'"):
        lab.store.queries.runs_of([first.id, "neither"])
