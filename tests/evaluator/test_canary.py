"""The noise canary: leaks learn to predict what cannot be known, honest mixers do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from linearch.config import DataConfig, GateConfig, ModelConfig, RunConfig
from linearch.evaluator.canary import noise_canary
from linearch.evaluator.results import GateResult
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.sizing import load
from linearch.evaluator.subject import Subject
from linearch.search_space.library import baseline_source

MakeSource = Callable[..., str]
Ask = Callable[[str], GateResult]

_MODEL = {
    "vocab_size": 256,
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "mlp_width": 16,
    "pattern": "L",
    "window": 8,
}
_CONFIG = RunConfig(
    model=ModelConfig(d_model=16),
    data=DataConfig(seq_len=32),
    gates=GateConfig(canary_steps=150),
)


@pytest.fixture
def ask(sandbox: Sandbox, limits: Limits) -> Iterator[Ask]:
    def asked(source: str) -> GateResult:
        with sandbox.spawn(limits) as child:
            load(child, Subject(source=source))
            return noise_canary(child, _MODEL, _CONFIG, "cpu", "fp32")

    return asked


@pytest.mark.parametrize("name", ["linear_attention", "gated_deltanet", "softmax_attention"])
def test_an_honest_mixer_does_not_go_below_the_entropy_of_noise(name: str, ask: Ask) -> None:
    result = ask(baseline_source(name))
    assert result.passed, result.reason
    for mode in ("train", "eval"):
        assert 3.99 < result.evidence[f"bits_{mode}"] < 4.2


_BLOCK_MEAN = """
blocks = [b.mean(1, keepdim=True).expand_as(b) for b in x.split(8, dim=1)]
y = y + self.proj(torch.cat(blocks, dim=1))
"""
_SPECTRUM = """
spectrum = torch.fft.rfft(x, dim=1)
decay = torch.exp(-torch.arange(spectrum.shape[1], device=x.device) / 6.0)[:, None]
y = y + self.proj(torch.fft.irfft(spectrum * decay, n=x.shape[1], dim=1))
"""
_CHUNK_STATE = """
n = x.shape[1] // 8 * 8
ends = x[:, :n].unflatten(1, (-1, 8)).sum(2).repeat_interleave(8, dim=1)
y = y + self.proj(nn.functional.pad(ends, (0, 0, 0, x.shape[1] - n)))
"""


@pytest.mark.parametrize(
    ("forward", "mode"),
    [
        ("y = y + self.proj(x.roll(-1, 1))", "eval"),
        (_BLOCK_MEAN, "eval"),
        (_CHUNK_STATE, "eval"),
        (_SPECTRUM, "eval"),
        ("if self.training: y = y + self.proj(x.roll(-1, 1))", "train"),
    ],
)
def test_what_sees_the_future_predicts_noise(
    forward: str, mode: str, ask: Ask, mixer_source: MakeSource
) -> None:
    result = ask(mixer_source(forward=forward))
    assert result.passed is False
    assert "sees the future" in (result.reason or "")
    assert result.evidence[f"bits_{mode}"] < 4 - 2 * _CONFIG.gates.canary_margin_bits


def test_a_leak_in_train_mode_alone_shows_in_train_mode_alone(
    ask: Ask, mixer_source: MakeSource
) -> None:
    evidence = ask(
        mixer_source(forward="if self.training: y = y + self.proj(x.roll(-1, 1))")
    ).evidence
    assert evidence["bits_train"] < 4 < evidence["bits_eval"]


@pytest.mark.parametrize(
    "forward",
    [
        "y = y + self.proj(x.roll(1, 0))",  # a neighbour's row, which knows nothing of this one
        "if not self.training: y = y + 0.05 * self.proj(x.roll(-2, 1))",  # never trained to be used
    ],
)
def test_what_noise_cannot_show_passes_and_is_left_to_the_gates(
    forward: str, ask: Ask, mixer_source: MakeSource
) -> None:
    assert ask(mixer_source(forward=forward)).passed


@pytest.mark.parametrize(
    ("lines", "passed", "says"),
    [
        ({"forward": "y = y * float('nan')"}, None, "stopped being finite"),
        ({"forward": "if not self.training: y = y * float('nan')"}, None, "not finite"),
        ({"forward": "if self.training: raise ValueError('no noise')"}, False, "no noise"),
        ({"forward": "if not self.training: y = y.repeat(1, 2, 1)"}, False, "crashed"),
    ],
)
def test_a_mixer_that_gives_no_answer_gets_no_pass(
    lines: dict[str, str], passed: bool | None, says: str, ask: Ask, mixer_source: MakeSource
) -> None:
    result = ask(mixer_source(**lines))
    assert (result.passed, says in (result.reason or "")) == (passed, True), result.reason


_FORGED_HEAD = """
import linearch.evaluator.sandbox.workbench as workbench
workbench.Workbench._practise = lambda self, recipe: ({{"diverged": False}}, {{"head": {head}}})
"""


@pytest.mark.parametrize(
    ("head", "passed"),
    [
        ("torch.zeros(3, 16)", False),
        ("torch.zeros(16, 16).double()", False),
        ("torch.full((16, 16), float('inf'))", None),
        ("torch.zeros(16, 16)", True),
        ("100 * torch.randn(16, 16)", True),
    ],
)
def test_a_child_that_lies_about_its_training_gains_nothing_it_did_not_have(
    head: str, passed: bool | None, ask: Ask, mixer_source: MakeSource
) -> None:
    """A forged head cannot lower the bits: only knowing the labels can."""
    result = ask(mixer_source(top=_FORGED_HEAD.format(head=head)))
    assert result.passed is passed, result.reason
