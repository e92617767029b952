from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from linearch.db import CURVE, Store
from linearch.db.columns import UtcTime, to_json
from linearch.evaluator.results import GateResult, Judgement, TrialResult

HOSTILE = "../..\x00'); DROP TABLE runs; -- <script>\ud800 ∑ 😀"
STORED = "../..\ufffd'); DROP TABLE runs; -- <script>\ufffd ∑ 😀"


def test_hostile_text_is_stored_as_data(lab: Any) -> None:
    row = lab.propose(HOSTILE, motivation=HOSTILE, genome={"name": HOSTILE})
    lab.store.add_event(lab.run_id, "note", {"text": HOSTILE})
    found = lab.store.architecture(row.id)
    assert (found.name, found.motivation) == (STORED, STORED)
    assert found.genome == {"name": HOSTILE}
    assert lab.store.run(lab.run_id).state == "running"


def test_numbers_that_are_not_finite_are_missing(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    metrics = {"val_bpb": float("nan"), "tokens_per_s": float("inf"), "step_time_s": None}
    result = TrialResult(status="diverged", metrics=metrics, curve=((1, float("nan")), (2, 1.0)))
    assert lab.finish(trial.id, result)
    (detail,) = lab.store.queries.architecture(trial.architecture_id).trials
    assert detail.metrics == {"val_bpb": None, "tokens_per_s": None, "step_time_s": None}
    assert detail.curves == {CURVE: ((1, None), (2, 1.0))}


def test_evidence_keeps_its_non_finite_numbers_as_text(lab: Any) -> None:
    evidence = {"worst": float("inf"), "errors": [0.5, float("nan")], "shape": (2, 3)}
    result = GateResult(gate="causality", passed=False, reason="leaks", evidence=evidence)
    row = lab.store.record_judgement(lab.propose().id, Judgement(results=(result,)))
    (gate,) = lab.store.queries.architecture(row.id).gates
    assert gate.evidence == {"worst": "inf", "errors": [0.5, "nan"], "shape": [2, 3]}


def test_json_is_strict() -> None:
    assert json.loads(to_json({"a": [1.5, float("-inf")]})) == {"a": [1.5, "-inf"]}


def test_times_come_back_in_utc(store: Store) -> None:
    before = datetime.now(UTC)
    row = store.run(store.create_run({}, {}, seed=0))
    assert before <= row.created_at <= datetime.now(UTC)
    assert row.created_at.utcoffset() == timedelta(0)


def test_times_of_other_zones_are_converted_and_naive_ones_refused() -> None:
    column, dialect = UtcTime(), sqlite.dialect()
    noon_in_tokyo = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    assert column.process_bind_param(noon_in_tokyo, dialect) == datetime(2030, 1, 1, 3)
    with pytest.raises(ValueError, match="no time zone"):
        column.process_bind_param(datetime(2030, 1, 1), dialect)


def test_lengths_are_whole_numbers_again(lab: Any) -> None:
    assert lab.sound().state_bytes_at == {64: 16_384, 1024: 16_384}
