"""Unsound mixers: each is stopped first by the gate it was made for, and by no gate that it passes.

The second set holds every gate that fails it on its own, so leaving these out lets it through.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from honest_mixer import Honest, check_cheat
from torch import Tensor, nn

from linearch.evaluator.gates import DEVICE_GATES, GATES, run_gates, run_gates_on_layers


def _block_mean(x: Tensor, size: int) -> Tensor:
    length = x.shape[1]
    blocks = F.pad(x, (0, 0, 0, -length % size)).unflatten(1, (-1, size))
    mean = blocks.mean(dim=2, keepdim=True).expand_as(blocks)
    return mean.flatten(1, 2)[:, :length]


class BlockMean64(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + _block_mean(x, 64), state


class BlockMean16(Honest):
    def forward(self, x, state=None):
        return super().forward(x + _block_mean(x, 16), state)


class CircularFilter(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        spectrum = torch.fft.rfft(x, dim=1)
        weights = torch.linspace(1, 0.5, spectrum.shape[1])[:, None]
        filtered = torch.fft.irfft(spectrum * weights, n=x.shape[1], dim=1)
        return y + filtered.to(x.dtype), state


class NormOverTime(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y / y.norm(dim=1, keepdim=True), state


class SquaredFuture(Honest):
    """Blind to the sign of later tokens: a check that negates them sees nothing."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y * x.square().mean(dim=(1, 2), keepdim=True), state


def _next_token(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 1))[:, 1:]


class NextTokenCopy(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + _next_token(x), state


class FaintLeak(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return x + y + 1e-4 * _next_token(x), state


class LeaksInTraining(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + _next_token(x) if self.training else y), state


class LeaksWhenLong(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + _next_token(x) if x.shape[1] > 100 else y), state


class LeaksThroughClosedGate(Honest):
    """Sound as initialised, and free to learn the leak."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + self.gate.tanh() * _next_token(x), state


class LeaksInTheLastLayer(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + _next_token(x) if self.layer_idx == 1 else y), state


class BatchNormOverRows(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y - y.mean(dim=0, keepdim=True), state


class BatchNormInTraining(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y - y.mean(dim=0, keepdim=True) if self.training else y), state


class NeighbourRow(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.roll(1, dims=0), state


class FirstRowForAll(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x[:1], state


class HiddenState(Honest):
    seen: Tensor | float = 0.0

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        y = y + self.seen
        self.seen = x.mean().detach()
        return y, state


class RunningAverage(Honest):
    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, x, state=None):
        return super().forward(self.norm(x.mT).mT, state)


class NoiseAtEval(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 1e-3 * torch.randn_like(y), state


class LengthScaled(Honest):
    """Causal for any one length, but the answer says how long the whole is."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y / x.shape[1], state


class GrowingCache(Honest):
    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        past = x if state is None else torch.cat([state["seen"], x], dim=1)
        return y, {**after, "seen": past}


class ChangingKeys(Honest):
    def forward(self, x, state=None):
        if state is None:
            return super().forward(x)
        y, after = super().forward(x, state)
        return y, {**after, "later": x[:, -1].clone()}


class ChangingDtype(Honest):
    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        position = torch.zeros((), dtype=torch.float32 if state is None else torch.int64)
        return y, {**after, "position": position}


class ViewOfLongStorage(Honest):
    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        return y, {**after, "last": x.clone()[:, -1]}


class ForgetsBetweenPieces(Honest):
    def forward(self, x, state=None):
        return super().forward(x)


class CoarseState(Honest):
    """Rounds what it carries to half precision: close, and not the same."""

    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        return y, {"memory": after["memory"].half().float()}


class StateIsATensor(Honest):
    def forward(self, x, state=None):
        y, after = super().forward(x, None if state is None else {"memory": state})
        return y, after["memory"]


class UnusedParameter(Honest):
    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.idle = nn.Linear(d_model, d_model)


class DeadWeight(UnusedParameter):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + 0.0 * self.idle(x), state


class InfiniteGradient(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + (y - y.detach()).square().sqrt(), state  # adds 0 with slope 0 / 0


class NotANumber(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y / (x.shape[1] != 7), state


class TooNarrow(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y[..., 1:], state


class DoublePrecision(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y.double(), state


class RaisesOnOneToken(Honest):
    def forward(self, x, state=None):
        if x.shape[1] == 1:
            raise ValueError("needs two tokens")
        return super().forward(x, state)


FUTURE = {"causality", "prefix", "streaming"}
ROWS = {"batch", "causality"}
CALLS = {"replay", "batch", "causality", "prefix", "streaming"}
CHEATS = [
    (BlockMean64, "causality", FUTURE),
    (BlockMean16, "causality", FUTURE),
    (CircularFilter, "causality", FUTURE),
    (NormOverTime, "causality", FUTURE),
    (SquaredFuture, "causality", FUTURE),
    (NextTokenCopy, "causality", FUTURE),
    (FaintLeak, "causality", FUTURE),
    (LeaksInTraining, "causality", {"causality"}),
    (LeaksWhenLong, "causality", FUTURE),
    (LeaksThroughClosedGate, "causality", FUTURE),
    (BatchNormOverRows, "batch", ROWS),
    (BatchNormInTraining, "batch", ROWS),
    (NeighbourRow, "batch", ROWS),
    (FirstRowForAll, "batch", ROWS),
    (HiddenState, "replay", {*CALLS, "stability"}),
    (RunningAverage, "replay", {*ROWS, "replay", "buffers"}),
    (NoiseAtEval, "replay", CALLS),
    (LengthScaled, "prefix", {"prefix", "streaming"}),
    (GrowingCache, "streaming", {"streaming"}),
    (ChangingKeys, "streaming", {"streaming"}),
    (ChangingDtype, "streaming", {"streaming"}),
    (ViewOfLongStorage, "streaming", {"streaming"}),
    (ForgetsBetweenPieces, "streaming", {"streaming"}),
    (CoarseState, "streaming", {"streaming"}),
    (StateIsATensor, "shape", set(GATES) - {"cost"}),
    (UnusedParameter, "gradients", {"gradients"}),
    (DeadWeight, "gradients", {"gradients"}),
    (InfiniteGradient, "gradients", {"gradients", "stability"}),
    (NotANumber, "shape", {"shape", "streaming"}),
    (TooNarrow, "shape", set(GATES)),
    (DoublePrecision, "shape", set(GATES) - {"gradients", "cost"}),
    (RaisesOnOneToken, "shape", {"shape", "prefix", "streaming"}),
]


@pytest.mark.parametrize(
    ("cheat", "first", "failing"), CHEATS, ids=[cheat.__name__ for cheat, *_ in CHEATS]
)
def test_a_cheat_fails_the_gate_made_for_it_and_passes_without(cheat, first, failing, make_probe):
    check_cheat(lambda: make_probe(cheat), first, failing)


@pytest.mark.parametrize(
    ("cheat", "first"),
    [
        (BlockMean64, "causality"),
        (CircularFilter, "causality"),
        (NextTokenCopy, "causality"),
        (LeaksInTraining, "causality"),
        (NeighbourRow, "batch"),
        (BatchNormInTraining, "batch"),
        (HiddenState, "replay"),
        (LengthScaled, "prefix"),
        (ForgetsBetweenPieces, "streaming"),
    ],
)
def test_a_cheat_is_caught_in_bfloat16_too(cheat, first, make_probe, config):
    found = run_gates(make_probe(cheat, precision="bf16"), config, 11, DEVICE_GATES)[-1]

    assert (found.gate, found.passed) == (first, False)


def test_a_leak_behind_a_closed_gate_passes_without_jitter(make_probe, config):
    untouched = make_probe(LeaksThroughClosedGate, train=lambda mixer: None)
    results = run_gates(untouched, config, seed=11)

    assert all(result.passed for result in results)


def test_a_leak_in_one_layer_is_found_when_every_layer_is_asked(make_probe, config):
    probes = [make_probe(LeaksInTheLastLayer, layer_index=index) for index in (0, 1)]

    assert all(result.passed for result in run_gates(probes[0], config, seed=11))
    failure = run_gates_on_layers(probes, config, seed=11)[-1]
    assert (failure.gate, failure.passed, failure.evidence["layer"]) == ("causality", False, 1)
