"""On a GPU: trials of a search share it under MPS, and a fault is booked on its candidate alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
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
from linearch.evaluator.company import CompanyPool, Pool
from linearch.evaluator.mps import MpsUnavailable, shared_gpu
from linearch.evaluator.ray_pool import Finished, JudgeJob, TrialJob
from linearch.evaluator.results import Judgement, TrialResult, TrialSpec
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.workers import open_workers
from linearch.search_space.library import baseline_source

MakeSource = Callable[..., str]

pytestmark = pytest.mark.gpu

_LIMITS = Limits(wall_s=60, memory_bytes=16_384 * MIB, caps_address_space=False)
_STEP_TOKENS = 8 * 256
# Once its neighbour is in the middle of its training, it writes far beyond what is its own.
_FAULT = """
import time
import triton
import triton.language as tl

@triton.jit
def _write_outside(x):
    tl.store(x + (1 << 40), 1.0)
"""
_FAULTS_LATE = """
if x.is_cuda and self.training:
    time.sleep(20)
    _write_outside[(1,)](y)
    torch.cuda.synchronize()
"""
# Whatever CUDA has left open, of which one may lead to the service.
_COMMANDS = """
for descriptor in range(3, 512):
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.write(descriptor, b"quit\\n")
    except OSError:
        pass
"""


@pytest.fixture
def service() -> Iterator[dict[str, str]]:
    try:
        with shared_gpu() as variables:
            yield variables
    except MpsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pool(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Two workers as a search has them, in the profile whose candidates are Triton's."""
    config = RunConfig(
        model=ModelConfig(d_model=128, n_heads=2, param_budget=400_000),
        data=DataConfig(corpus=str(text_file), seq_len=256, val_windows=8),
        training=TrainingConfig(batch_size=8, warmup_steps=4, precision="bf16"),
        gates=GateConfig(deadline_s=120),
        sandbox=SandboxConfig(profile="compile"),
        workers=WorkerConfig(
            memory_limit_mib=16_384, trial_deadline_s=180, trials_at_once=2, gpu_sharing="mps"
        ),
    )
    folder = tmp_path_factory.getbasetemp().parent / "linearch-judge"
    said: list[str] = []
    with open_workers(config, device="cuda", folder=folder, address=None, say=said.append) as pool:
        assert said[-1] == "trials share the GPU under MPS"  # it may have compiled before
        assert isinstance(pool, CompanyPool)
        yield pool


@pytest.fixture(scope="module")
def spec(pool: Pool) -> TrialSpec:
    source = baseline_source("gated_deltanet")
    pool.submit(JudgeJob(key="known", source=source, pattern="L", is_reference=False))
    (finished,) = _wait(pool, 1).values()
    assert isinstance(finished.value, Judgement)
    assert finished.value.is_sound, finished.value.failure
    assert finished.value.mlp_width is not None
    return TrialSpec(
        source=source,
        pattern="L",
        mlp_width=finished.value.mlp_width,
        task="corpus",
        rung=0,
        tokens=60 * _STEP_TOKENS,
        seed=0,
        learning_rate=3e-3,
    )


def _wait(pool: Pool, count: int) -> dict[str, Finished]:
    told: dict[str, Finished] = {}
    while len(told) < count:
        told |= {finished.job.key: finished for finished in pool.wait(1.0)}
    return told


def _result(finished: Finished) -> TrialResult:
    assert isinstance(finished.value, TrialResult), finished.infra_error
    return finished.value


def test_two_trials_share_the_gpu_and_are_scored(pool: Pool, spec: TrialSpec) -> None:
    for seed in (0, 1):
        pool.submit(TrialJob(key=f"{seed}", spec=replace(spec, seed=seed)))
    for finished in _wait(pool, 2).values():
        result = _result(finished)
        assert (result.status, result.reason) == ("done", None)
        assert result.environment["mps"] is True
        assert result.environment["sandbox"]["level"] in ("confined", "isolated")
        assert (result.metrics["peak_memory_bytes"] or 0) > 0


def test_a_fault_on_the_gpu_is_booked_on_its_candidate_and_the_neighbour_is_scored(
    pool: Pool, spec: TrialSpec, mixer_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    assert isinstance(pool, CompanyPool)
    submit = pool._pool.submit

    def noted(job: JudgeJob | TrialJob) -> None:
        tried.append(job.key)
        submit(job)

    monkeypatch.setattr(pool._pool, "submit", noted)
    faulty = mixer_source(top=_FAULT, forward=_FAULTS_LATE)
    pool.submit(TrialJob(key="culprit", spec=replace(spec, source=faulty)))
    pool.submit(TrialJob(key="neighbour", spec=replace(spec, tokens=20_000 * _STEP_TOKENS)))
    told = _wait(pool, 2)
    culprit = _result(told["culprit"])
    assert culprit.status == "crashed"
    assert "CUDA" in (culprit.reason or "")
    assert _result(told["neighbour"]).status == "done"
    # together, each alone, and what succeeded once more
    assert sorted(tried) == ["culprit", "culprit", "neighbour", "neighbour", "neighbour"]


@pytest.mark.parametrize("profile", ["strict", "compile"])
def test_what_cuda_left_open_does_not_end_the_service(
    profile: str, service: dict[str, str], tmp_path: Path, hostile_source: MakeSource
) -> None:
    options = {"device": "cuda", "profile": profile, "mps": service}
    with Sandbox(tmp_path / "hostile", **options) as sandbox:  # type: ignore[arg-type]
        assert sandbox.containment.failed_acts == ()
        with sandbox.spawn(_LIMITS) as child:
            source = hostile_source(top=_COMMANDS)
            with suppress(ChildFailed):  # our own channel is a socket, too
                child.call("load", {"source": source, "convention": "linearch"})
        with sandbox.spawn(_LIMITS) as child:
            assert child.call("device").values["name"]
    with shared_gpu(service) as still:
        assert still == service
