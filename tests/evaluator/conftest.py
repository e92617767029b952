"""One zygote for all tests, candidates made from a few lines each, and a judge of tiny models."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from linearch.config import (
    DataConfig,
    GateConfig,
    ModelConfig,
    RecallConfig,
    RunConfig,
    TrainingConfig,
    WorkerConfig,
)
from linearch.evaluator import Judge, TrialResult, TrialSpec
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.supervisor import Sandbox

_SUM_MIXER = '''
import torch
from torch import nn

{top}

class Mixer(nn.Module):
    """y_t = tanh(W (x_1 + ... + x_t)), unless the lines put in say otherwise."""

    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model, bias=False)
{init}

    def forward(self, x, state=None):
        total = x.cumsum(1)
        if state is not None:
            total = total + state["sum"]
        y = torch.tanh(self.proj(total))
        state = {{"sum": total[:, -1:].clone()}}
{forward}
        return y, state
'''

_HOSTILE_IMPORTS = "import ctypes, os, signal, stat, sys, time\n"

MakeSource = Callable[..., str]
Run = Callable[..., TrialResult]


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def limits() -> Limits:
    return Limits(wall_s=20, memory_bytes=512 * MIB)


@pytest.fixture(scope="session")
def mixer_source() -> MakeSource:
    """A sound mixer's source, with lines put in at the top, the end of __init__ or of forward."""

    def make(*, top: str = "", init: str = "", forward: str = "") -> str:
        return _SUM_MIXER.format(
            top=textwrap.dedent(top),
            init=textwrap.indent(textwrap.dedent(init), " " * 8),
            forward=textwrap.indent(textwrap.dedent(forward), " " * 8),
        )

    return make


@pytest.fixture(scope="session")
def hostile_source(mixer_source: MakeSource) -> MakeSource:
    """The same with modules at hand that the source check would have refused."""

    def make(*, top: str = "", **lines: str) -> str:
        return mixer_source(top=_HOSTILE_IMPORTS + textwrap.dedent(top), **lines)

    return make


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 60 kB in which the next byte can be learned."""
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    path.write_text("".join(f"{words[i * i % 5]} {i % 7}\n" for i in range(7000)))
    return path


@pytest.fixture(scope="session")
def config(text_file: Path) -> RunConfig:
    return RunConfig(
        model=ModelConfig(d_model=16, param_budget=10_000, window=8),
        data=DataConfig(corpus=str(text_file), seq_len=32, val_windows=16),
        training=TrainingConfig(batch_size=4, warmup_steps=4),
        recall=RecallConfig(
            sizes={"mqar": {"vocab_size": 32, "seq_len": 32, "n_pairs": 4}},
            batch_size=8,
            test_sequences=32,
        ),
        gates=GateConfig(deadline_s=20),
        workers=WorkerConfig(memory_limit_mib=512, trial_deadline_s=20),
    )


@pytest.fixture(scope="session")
def judge(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with Judge(config, device="cpu", folder=tmp_path_factory.mktemp("run")) as judge:
        yield judge


@pytest.fixture(scope="session")
def spec(judge: Judge, mixer_source: MakeSource) -> TrialSpec:
    """20 steps of a sound mixer at its matched width."""
    judgement = judge.judge(mixer_source(), "L")
    assert judgement.mlp_width is not None
    return TrialSpec(
        source=mixer_source(),
        pattern="L",
        mlp_width=judgement.mlp_width,
        task="corpus",
        rung=0,
        tokens=20 * 4 * 32,
        seed=0,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="session")
def honest(judge: Judge, spec: TrialSpec) -> TrialResult:
    """What the sound mixer's 20 steps give."""
    result = judge.run_trial(spec)
    assert result.status == "done"
    return result


@pytest.fixture
def run(judge: Judge, spec: TrialSpec, hostile_source: MakeSource) -> Run:
    """A trial like the honest one, of the mixer with these lines put in."""

    def run(**lines: str) -> TrialResult:
        return judge.run_trial(replace(spec, source=hostile_source(**lines)))

    return run
