"""`linearch bench first`: first steps are timed in processes of their own, interpreted ones too."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from linearch.bench import run_first
from linearch.errors import PreflightError
from linearch.kernels.bench_cases import operation_names
from linearch.kernels.bench_first import HEADER, RECURRENCES, FirstStep, line


def bench_first(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "linearch", "bench", "first", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_first_step_is_timed_cold_and_warm() -> None:
    pytest.importorskip("triton")
    done = bench_first(
        "--operation", "decay none", "--shape", "1,8,1,16", "--json", TRITON_INTERPRET="1"
    )
    assert done.returncode == 0, done.stderr
    (row,) = (json.loads(text) for text in done.stdout.splitlines())
    assert (row["operation"], row["shape"]) == ("decay none", [1, 8, 1, 16])
    assert all(row[name] > 0 for name in ("cold_s", "warm_s", "cold_setup_s", "warm_setup_s"))


@pytest.mark.slow
def test_a_process_that_fails_is_one_sentence() -> None:
    pytest.importorskip("triton")
    done = bench_first("--operation", "decay none", "--shape", "1,8,1,512", TRITON_INTERPRET="1")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: the first step of decay none at (1, 8, 1, 512) ended with status 1: ValueError: "
    )
    assert "Traceback" not in done.stderr


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PreflightError, match="needs an NVIDIA GPU, and there is none here"):
        run_first(shapes=[], operations=[], as_json=False)


def test_a_row_stands_under_its_header() -> None:
    step = FirstStep(
        operation="dplr channel", shape=(8, 2048, 5, 128),
        cold_s=20.1, warm_s=1.25, cold_setup_s=3.0, warm_setup_s=2.0,
    )  # fmt: skip
    assert len(line(step)) == len(HEADER)
    assert line(step).split()[-4:] == ["20.10", "1.25", "3.00", "2.00"]


def test_the_recurrences_are_operations_there_are() -> None:
    assert all(operation_names((name,)) for name in RECURRENCES)
