"""The judge where it matters: real kernels, training precision, a sandboxed child on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from linearch.config import (
    DataConfig,
    GateConfig,
    ModelConfig,
    RunConfig,
    SandboxConfig,
    TrainingConfig,
    WorkerConfig,
)
from linearch.evaluator import Judge, TrialSpec
from linearch.search_space.library import BASELINES, baseline_source

MakeSource = Callable[..., str]

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=["strict", "compile"])
def gpu_config(text_file: Path, request: pytest.FixtureRequest) -> RunConfig:
    """Two heads of 64 and sequences of 256: the shapes that kernels are written for. In the profile
    `compile` they are Triton's.
    """
    return RunConfig(
        model=ModelConfig(d_model=128, n_heads=2, param_budget=400_000),
        data=DataConfig(corpus=str(text_file), seq_len=256, val_windows=8),
        training=TrainingConfig(batch_size=8, warmup_steps=4, precision="bf16"),
        gates=GateConfig(deadline_s=120),
        sandbox=SandboxConfig(profile=request.param),
        workers=WorkerConfig(memory_limit_mib=16_384, trial_deadline_s=180, trials_at_once=1),
    )


@pytest.fixture(scope="module")
def gpu_judge(gpu_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Its folder is kept from session to session, for the kernels compiled in it."""
    folder = tmp_path_factory.getbasetemp().parent / "linearch-judge"
    with Judge(gpu_config, device="cuda", folder=folder) as judge:
        yield judge


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_mixer_of_the_library_is_sound_on_the_gpu_in_its_precision(
    name: str, gpu_judge: Judge
) -> None:
    judgement = gpu_judge.audit(baseline_source(name), is_reference=BASELINES[name].is_reference)
    assert judgement.infra_error is None
    failed = [(r.stage, r.gate, r.reason) for r in judgement.results if r.passed is False]
    assert failed == []
    on_device = {r.gate for r in judgement.results if r.stage == "device" and r.passed}
    assert {"shape", "replay", "batch", "causality", "prefix", "streaming", "canary"} <= on_device


@pytest.mark.parametrize(
    ("forward", "gate"),
    [
        ("y = y + 0.2 * x.roll(-1, 1)", "causality"),
        ("y = y + 0.2 * x.roll(1, 0)", "batch"),
        ("if self.training: y = y + self.proj(x.roll(-1, 1))", "canary"),
    ],
)
def test_a_cheat_that_shows_itself_on_a_gpu_alone_is_found_there(
    forward: str, gate: str, gpu_judge: Judge, mixer_source: MakeSource
) -> None:
    # With larger weights tanh saturates, and differences between pieces are all rounding.
    small = "self.proj.weight.data.mul_(0.1)"
    source = mixer_source(init=small, forward=f"if x.is_cuda:\n    {forward}")
    judgement = gpu_judge.audit(source)
    found = {(r.stage, r.gate): r.passed for r in judgement.results}
    assert found["device", gate] is False, found
    assert not [
        gate for (stage, gate), passed in found.items() if stage == "cpu" and passed is False
    ]


@pytest.fixture(scope="module")
def gpu_spec(gpu_judge: Judge) -> TrialSpec:
    source = baseline_source("gated_deltanet")
    judgement = gpu_judge.judge(source, "L")
    assert judgement.is_sound, judgement.failure
    assert judgement.mlp_width is not None
    return TrialSpec(
        source=source,
        pattern="L",
        mlp_width=judgement.mlp_width,
        task="corpus",
        rung=0,
        tokens=60 * 8 * 256,
        seed=0,
        learning_rate=3e-3,
    )


def test_a_sandboxed_child_trains_on_the_gpu_and_is_scored(
    gpu_judge: Judge, gpu_spec: TrialSpec, gpu_config: RunConfig
) -> None:
    result = gpu_judge.run_trial(gpu_spec)
    assert (result.status, result.reason) == ("done", None)
    assert 0 < (result.metrics["val_bpb"] or 0.0) < 7
    assert 0 < (result.metrics["prefix_shift_nats"] or 0.0) < 0.5
    assert (result.metrics["peak_memory_bytes"] or 0) > 0
    assert all(gate.passed for gate in result.gates)
    assert {gate.stage for gate in result.gates} == {"trained"}
    assert result.environment["sandbox"]["profile"] == gpu_config.sandbox.profile


def test_training_before_the_data_are_served_does_not_shorten_the_time_billed(
    gpu_judge: Judge, gpu_spec: TrialSpec
) -> None:
    """Compilation is not billed, so it is where work would hide: the data are not there yet."""
    added = """
import os
import linearch.evaluator.sandbox.workbench as workbench
_prepare = workbench.Workbench._prepare
def _early(self, values, report):
    if os.fstat(self._data).st_size:
        raise LookupError("the data are here")
    return _prepare(self, values, report)
workbench.Workbench._prepare = _early
"""
    result = gpu_judge.run_trial(replace(gpu_spec, source=gpu_spec.source + added))
    assert result.status == "done", result.reason


def test_work_on_a_side_stream_after_the_reply_changes_no_file(
    gpu_judge: Judge, gpu_spec: TrialSpec
) -> None:
    honest = gpu_judge.run_trial(gpu_spec)
    added = """
import threading, time, torch
import linearch.evaluator.sandbox.workbench as workbench
_save = workbench.save_tensors
def _late(path):
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.randn(4096, 4096, device="cuda").matmul(torch.randn(4096, 4096, device="cuda"))
    time.sleep(0.2)
    open(path, "wb").write(bytes(99))
def _saved(tensors, path):
    _save(tensors, path)
    threading.Thread(target=_late, args=(path,), daemon=True).start()
workbench.save_tensors = _saved
"""
    result = gpu_judge.run_trial(replace(gpu_spec, source=gpu_spec.source + added))
    assert result.status == "done", result.reason
    assert result.metrics["val_bpb"] == pytest.approx(honest.metrics["val_bpb"], abs=0.1)
