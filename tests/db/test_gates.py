"""Gate results by stage: on the processor, on the device, and on trained weights."""

from __future__ import annotations

from typing import Any

from linearch.evaluator.results import GateResult, Judgement, TrialResult


def _judge(lab: Any, *results: GateResult) -> Any:
    return lab.store.record_judgement(
        lab.propose().id, Judgement(results=results, sandbox="confined")
    )


def _stages(lab: Any, architecture_id: str) -> list[tuple[str, str, bool | None]]:
    gates = lab.store.queries.architecture(architecture_id).gates
    assert [gate.position for gate in gates] == sorted(gate.position for gate in gates)
    return [(gate.stage, gate.gate, gate.passed) for gate in gates]


def _finish(lab: Any, architecture_id: str, *gates: GateResult, status: Any = "done", **key: Any):
    trial = lab.enqueue(architecture_id, **key)
    metrics = {"val_bpb": 2.5} if status == "done" else {}
    result = TrialResult(status=status, metrics=metrics, gates=gates, sandbox="isolated")
    assert lab.finish(trial.id, result)
    return lab.store.trial(trial.id)


def test_one_gate_is_stored_once_a_stage(lab: Any) -> None:
    row = _judge(
        lab,
        GateResult(gate="causality", passed=True),
        GateResult(gate="causality", passed=True, stage="device"),
    )
    assert row.state == "sound"
    assert _stages(lab, row.id) == [("cpu", "causality", True), ("device", "causality", True)]


def test_an_absent_verdict_is_stored_as_absent_and_rejects_nothing(lab: Any) -> None:
    reason = "this convention has no streaming"
    row = _judge(
        lab,
        GateResult(gate="shape", passed=True),
        GateResult(gate="streaming", passed=None, reason=reason),
    )
    assert (row.state, row.reason) == ("sound", None)
    gate = lab.store.queries.architecture(row.id).gates[1]
    assert (gate.passed, gate.reason, gate.sandbox) == (None, reason, "confined")
    assert row.source_hash in lab.store.queries.trusted_hashes()


def test_gates_on_trained_weights_stand_after_the_judgements_own(lab: Any) -> None:
    row = lab.sound()
    trial = _finish(lab, row.id, GateResult(gate="replay", passed=True, stage="trained"))
    assert trial.sandbox == "isolated"
    assert _stages(lab, row.id)[-1] == ("trained", "replay", True)
    assert lab.store.queries.architecture(row.id).gates[-1].sandbox == "isolated"


def test_of_several_trainings_the_last_ones_gates_stay_unless_one_failed(lab: Any) -> None:
    row = lab.sound()
    _finish(lab, row.id, GateResult(gate="replay", passed=True, stage="trained"), rung=0)
    leak = GateResult(gate="causality", passed=False, reason="it leaks", stage="trained")
    _finish(lab, row.id, leak, rung=1, status="noncausal")
    assert [found for found in _stages(lab, row.id) if found[0] == "trained"] == [
        ("trained", "causality", False)
    ]
    _finish(lab, row.id, GateResult(gate="replay", passed=True, stage="trained"), seed=1)
    assert ("trained", "causality", False) in _stages(lab, row.id)


def test_a_source_whose_trained_weights_are_unsound_is_rejected_and_not_trusted(lab: Any) -> None:
    row = lab.sound()
    _finish(lab, row.id, status="unsound")
    assert lab.store.architecture(row.id).rejected_by == "unsound"
    assert lab.store.queries.trusted_hashes() == frozenset()


def test_an_alarm_is_stored_with_its_trial(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    alarm = "0.2 bits per byte are below lzma's 1.8"
    lab.finish(trial.id, TrialResult(status="done", metrics={"val_bpb": 0.2}, alarm=alarm))
    assert lab.store.trial(trial.id).alarm == alarm
