"""`linearch bench kernels`: every operation is timed, and what was not measured is not a number."""

from __future__ import annotations

import json

import pytest
import torch

from linearch.bench import run_kernels
from linearch.errors import ConfigError, PreflightError
from linearch.kernels import bench, bench_clock, bench_peer
from linearch.kernels.bench_cases import cases

CPU, TINY = torch.device("cpu"), (1, 8, 1, 4)


@pytest.fixture(autouse=True)
def five_calls_for_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_clock, "_SECONDS_ON_CPU", 0.0)


def test_every_operation_is_timed_on_a_cpu() -> None:
    rows = list(bench.measure(CPU, shapes=(TINY,)))
    assert [row.operation for row in rows] == [case.operation for case in cases(TINY, CPU)]
    assert {"decay channel", "delta channel", "head and loss"} < {row.operation for row in rows}
    assert all(row.both_ms > 0 and row.forward_ms > 0 for row in rows)


def test_what_a_cpu_cannot_tell_is_none_and_shown_as_a_dash() -> None:
    (row,) = bench.measure(CPU, shapes=(TINY,), operations=("scan",))
    unknown = (row.forward_floor_ms, row.workspace_bytes, row.peer_both_ms, row.both_ratio)
    assert unknown == (None, None, None, None)
    text = bench.line(row)
    assert len(text) == len(bench.HEADER)
    assert text.split()[-1] == "-"


def test_a_form_an_operation_lacks_is_replaced_by_the_one_named_in_its_row() -> None:
    (row,) = bench.measure(CPU, shapes=(TINY,), operations=("decay none",), form="triton")
    assert row.form == "chunked"
    (row,) = bench.measure(CPU, shapes=(TINY,), operations=("decay none",), form="naive")
    assert row.form == "naive"


def test_the_peer_is_asked_for_operations_there_are() -> None:
    by_name = {case.operation: case for case in cases(TINY, CPU)}
    assert set(bench_peer.GUARDED) < set(by_name)
    with_peer = {name for name, case in by_name.items() if bench_peer.peer_call(case) is not None}
    assert len(with_peer) == 13
    assert "short convolution" not in with_peer


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    run_kernels(
        peer=False,
        shapes=["1, 8,1,4"],
        operations=["norm"],
        form=None,
        device="cpu",
        as_json=True,
    )
    rows = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [row["operation"] for row in rows] == ["norm", "norm, gated", "norm, residual"]
    assert rows[0]["shape"] == [1, 8, 1, 4]


@pytest.mark.parametrize("shape", ["1,2,3", "1,2,3,x", "1,0,2,3", ""])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(ConfigError, match="wanted four sizes"):
        run_kernels(
            peer=False, shapes=[shape], operations=[], form=None, device="cpu", as_json=True
        )


def test_a_peer_on_a_cpu_is_refused() -> None:
    with pytest.raises(PreflightError, match="--peer fla needs an NVIDIA GPU"):
        run_kernels(peer=True, shapes=[], operations=[], form=None, device="cpu", as_json=True)
