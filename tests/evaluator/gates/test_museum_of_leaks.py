"""More ways to see the future or the neighbours, and cheats that hide a leak from a plain check."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from honest_mixer import Honest, check_cheat
from torch import Tensor, nn

from linearch.evaluator.gates import GATES, TRAINED_GATES, run_gates
from linearch.evaluator.gates.compare import largest_difference


def _next_token(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 1))[:, 1:]


class MaximumOverTime(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.amax(dim=1, keepdim=True), state


class SortedOverTime(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.sort(dim=1).values, state


class ReversedTime(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.flip(1), state


class BackwardSums(Honest):
    """The other half of a bidirectional mixer."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.flip(1).cumsum(1).flip(1) / x.shape[1], state


class Interpolated(Honest):
    """Thinned out and stretched again: every second answer is half the next token's."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        thin = x.mT[..., ::2]
        return y + F.interpolate(thin, size=x.shape[1], mode="linear").mT, state


class UnmaskedPooling(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        weights = x.mean(dim=-1, keepdim=True).softmax(dim=1)
        return y + (weights * x).sum(dim=1, keepdim=True), state


class CentredConvolution(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + F.avg_pool1d(x.mT, 3, stride=1, padding=1).mT, state


class RollsThroughTheBatch(Honest):
    """Rows laid end to end: each last token sees the next row's first."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.flatten(0, 1).roll(-1, dims=0).view_as(x), state


class FirstKnowsLast(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return torch.cat([y[:, :1] + x[:, -1:], y[:, 1:]], dim=1), state


class LeaksWhenShort(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + _next_token(x) if x.shape[1] < 7 else y), state


class LeaksBeyondTraining(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + _next_token(x) if x.shape[1] > 200 else y), state


class BesideALoudChannel(Honest):
    """A leak 10,000 times smaller than one channel that says nothing."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        loud = F.pad(1e5 * x[..., :1].sign(), (0, x.shape[-1] - 1))
        return y + loud + 1e-2 * _next_token(x), state


class DetachedFuture(Honest):
    """No gradient leads to what it sees."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + _next_token(x).detach(), state


FUTURE = {"causality", "prefix", "streaming"}
CHEATS = [
    (MaximumOverTime, "causality", FUTURE),
    (SortedOverTime, "causality", FUTURE),
    (ReversedTime, "causality", FUTURE),
    (BackwardSums, "causality", FUTURE),
    (Interpolated, "causality", FUTURE),
    (UnmaskedPooling, "causality", FUTURE),
    (CentredConvolution, "causality", FUTURE),
    (RollsThroughTheBatch, "batch", {*FUTURE, "batch"}),
    (FirstKnowsLast, "causality", FUTURE),
    (LeaksWhenShort, "causality", {"causality", "prefix", "streaming"}),
    (LeaksBeyondTraining, "causality", {"causality"}),
    (BesideALoudChannel, "causality", FUTURE),
    (DetachedFuture, "causality", FUTURE),
]


@pytest.mark.parametrize(
    ("cheat", "first", "failing"), CHEATS, ids=[cheat.__name__ for cheat, *_ in CHEATS]
)
def test_a_leak_is_found_and_passes_without_its_gates(cheat, first, failing, make_probe):
    check_cheat(lambda: make_probe(cheat), first, failing)


def test_a_loud_channel_would_hide_the_leak_from_a_common_scale(make_probe):
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 40:] = 0.0
    probe = make_probe(BesideALoudChannel)
    before, after = probe.forward(x), probe.forward(changed)
    is_kept = torch.arange(64).lt(40).expand(2, -1)

    over_all = (before - after)[:, :40].abs().max() / before.square().mean().sqrt()

    assert over_all < 1e-5
    assert largest_difference(before, after, where=is_kept).relative > 1e-3


class LeaksOverOneEdge(Honest):
    """The last token of the first chunk sees the next one; its convention cannot stream."""

    chunk = 44

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        is_edge = torch.arange(x.shape[1], device=x.device)[:, None] == self.chunk - 1
        return y + is_edge * _next_token(x), state


def test_an_edge_is_found_because_the_source_names_the_chunk_size(make_probe, config):
    gates = {"causality": GATES["causality"]}
    blind = make_probe(LeaksOverOneEdge, can_stream=False)
    told = make_probe(LeaksOverOneEdge, can_stream=False, chunk_sizes=(LeaksOverOneEdge.chunk,))

    (missed,) = run_gates(blind, config, seed=11, gates=gates)
    (caught,) = run_gates(told, config, seed=11, gates=gates)

    assert (missed.passed, caught.passed) == (True, False)
    assert caught.evidence["cut"] == LeaksOverOneEdge.chunk - 1


class LeaksBehindAThreshold(Honest):
    """Closed at initialisation, jittered or not; training can open it."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + F.relu(self.gate - 0.5) * _next_token(x) + 0.0 * self.gate.square(), state


def _open_the_gate(mixer: nn.Module) -> None:
    mixer.gate.data.fill_(1.0)


def test_a_leak_that_training_opens_is_found_on_the_trained_weights(make_probe, config):
    new = make_probe(LeaksBehindAThreshold)
    trained = make_probe(LeaksBehindAThreshold, train=_open_the_gate)

    assert all(result.passed for result in run_gates(new, config, seed=11))
    found = run_gates(trained, config, 11, TRAINED_GATES)[-1]
    assert (found.gate, found.passed) == ("causality", False)
