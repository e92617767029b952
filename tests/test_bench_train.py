"""`linearch bench train`: rows of a short measurement, and requests that cannot be met."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from linearch.bench_train import TrainBench, run_train
from linearch.errors import ConfigError, LinearchError, PreflightError
from linearch.evaluator import train_bench
from linearch.evaluator.train_bench import Clock, Size, TimeIsUp, matmul_params, measure
from linearch.evaluator.train_bench_packed import measure_packed
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.library import baseline_source
from linearch.search_space.loading import load_mixer_class

CPU = torch.device("cpu")
_TINY = Size(
    model=BackboneConfig(vocab_size=32, d_model=16, n_layers=1, n_heads=1, mlp_width=8),
    batch_size=2,
    seq_len=16,
)
_ASKED = TrainBench(
    sizes=("tiny",),
    baselines=("retnet", "gla"),
    at_once=(),
    device="cpu",
    seconds=0.05,
    records=True,
    peer=False,
    mps=False,
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(train_bench.SIZES, "tiny", _TINY)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_each_baseline_asked_for_gets_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    run_train(_ASKED, as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["retnet", "gla"]
    for row in rows:
        assert row["tokens_per_s"] == pytest.approx(1e3 * _TINY.step_tokens / row["step_ms"])
        assert 0 < row["matmul_share"] < 1
        assert row["first_step_s"] > 0
        assert row["peak_memory_bytes"] is None
        assert row["is_graph"] is False
    run_train(_ASKED, as_json=False)
    assert "retnet" in capsys.readouterr().out


def test_the_clock_counts_the_steps_after_the_warm_ones() -> None:
    started: list[int] = []
    clock = Clock(_TINY, CPU, 0.02, start=lambda: started.append(step))
    step = 0
    try:
        while True:
            inputs, labels = clock(step)
            assert torch.equal(inputs[:, 1:], labels[:, :-1])
            step += 1
    except TimeIsUp:
        assert started == [3]
    assert clock.n_steps == step - 3
    assert clock.elapsed_s >= 0.02
    assert clock.tokens_per_s == pytest.approx(clock.n_steps * 32 / clock.elapsed_s)


def test_matrix_parameters_count_the_head_and_no_vectors() -> None:
    model = Backbone(_TINY.model, load_mixer_class(baseline_source("linear_attention"), "counted"))
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert vectors > 0
    assert matmul_params(model) == everything - vectors


def test_a_training_that_ends_by_itself_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_bench, "_STEPS", 2)
    with pytest.raises(RuntimeError, match="before its time"):
        measure("retnet", "tiny", CPU, seconds=1.0)


@pytest.mark.slow
def test_trainings_at_once_are_summed() -> None:
    packed = measure_packed("retnet", "search", CPU, 1, seconds=0.1)
    assert packed.tokens_per_s > 0
    assert (packed.n_processes, packed.shares_gpu, packed.is_graph) == (1, False, False)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_measurement() -> None:
    with pytest.raises(LinearchError, match="exit code 1"):
        measure_packed("nobody", "search", CPU, 1, seconds=0.1)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"sizes": ("7b",)}, ConfigError, "choose from search"),
        ({"baselines": ("nobody",)}, ConfigError, "choose from softmax_attention"),
        ({"mps": True}, ConfigError, "--at-once"),
        ({"peer": True, "at_once": (2,)}, ConfigError, "choose one"),
        ({"peer": True}, PreflightError, "--peer fla needs"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    change: dict[str, object], error: type[LinearchError], says: str
) -> None:
    asked = {name: getattr(_ASKED, name) for name in _ASKED.__slots__}
    with pytest.raises(error, match=says):
        run_train(TrainBench(**{**asked, **change}), as_json=True)
