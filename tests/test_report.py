"""A report's page is made of its facts: what is missing is a dash, names break no table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linearch.errors import LinearchError
from linearch.report import markdown, read_facts


def architecture(name: str, **facts: Any) -> dict[str, Any]:
    row = {
        "id": name,
        "name": name,
        "origin": "baseline",
        "is_reference": False,
        "rank": 1,
        "tie": 1,
        "rung": 1,
        "val_bpb": 2.0,
        "val_bpb_low": 1.9,
        "val_bpb_high": 2.1,
        "n_seeds": 3,
        "val_bpb_by_rung": {"0": 2.5, "1": 2.0},
        "n_params": 120_000,
        "flops_per_token": 912_345.0,
        "state_bytes": 2048,
        "tokens_per_s": 31_400.0,
        "decode_time_s": 0.0021,
        "peak_memory_bytes": 3 << 20,
        "trials": [],
    }
    return row | facts


def report(*architectures: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "run": "01",
        "command": "launch-search --profile cpu",
        "created_at": "2026-11-27T12:00:00+00:00",
        "elapsed_s": 65.0,
        "state": "finished",
        "versions": {"torch": "2.13"},
        "machine": "a machine",
        "architectures": list(architectures),
        "statistics": {
            name: [] for name in ("rank_correlation", "winners_curse", "comparison", "noise_floor")
        },
    } | facts


def test_a_row_has_every_rung_and_the_interval_of_the_last() -> None:
    page = markdown(report(architecture("A"), architecture("B", tie=2, rank=2)))
    assert (
        "| 1 | A | baseline | 2.500 | 2.000 ± 0.100 | 3 | 120,000 | 0.91 | 2.0 | 31 | 2.10 | 3 |"
        in page
    )
    assert "2026-11-27, a machine, torch 2.13, finished in 1:05." in page


def test_what_is_missing_is_a_dash_and_never_zero() -> None:
    unmeasured = {"rank": None, "state_bytes": None, "tokens_per_s": None, "val_bpb_high": None}
    low = architecture("A", rung=0, val_bpb_by_rung={"0": 2.5}, **unmeasured)
    page = markdown(report(low, architecture("B", tie=2)))
    assert "| – | A | baseline | 2.500 | – | 3 | 120,000 | 0.91 | – | – | 2.10 | 3 |" in page
    assert "Seed noise of one training: not measured." in page


def test_tasks_get_a_column_with_the_seeds_of_their_best_rate() -> None:
    measured = [(1e-3, 0.5), (1e-3, 1.0), (1e-2, 0.2)]
    trials: list[dict[str, Any]] = [
        {"task": "mqar", "rung": 0, "learning_rate": rate, "metrics": {"recall_mqar": share}}
        for rate, share in measured
    ]
    trials.append({"task": "corpus", "rung": 0, "learning_rate": 1e-3, "metrics": {"val_bpb": 2.0}})
    page = markdown(report(architecture("A", trials=trials), architecture("B")))
    assert "| rung 1 | mqar | seeds |" in page
    assert "| 2.000 ± 0.100 | 75% (50% to 100%) | 3 |" in page
    assert "| 2.000 ± 0.100 | – | 3 |" in page


def test_those_that_noise_cannot_tell_apart_share_a_rank() -> None:
    page = markdown(report(architecture("A|B"), architecture("C")))
    assert "| =1 | A\\|B |" in page
    assert "| =1 | C |" in page


@pytest.mark.parametrize("text", ["not JSON", "[]", json.dumps({"run": "01"})])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(LinearchError, match="report"):
        read_facts(file)
