"""Mixers that are sound in everything but what they cost, and some that only look expensive."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from honest_mixer import Honest, check_cheat
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from linearch.evaluator.gates import GATES, run_gates
from linearch.evaluator.gates.cost import cost_lengths
from linearch.evaluator.gates.growth import exponent
from linearch.kernels import chunk_decay


def _attend(q, k, v, memory):
    """Linear attention of one piece in its quadratic form: [B, T, D] and the memory before it."""
    return (q @ k.mT).tril() @ v + q @ memory, memory + k.mT @ v


class QuadraticForm(Honest):
    def piece_length(self, length: int) -> int:
        return length

    def forward(self, x, state=None):
        D = x.shape[-1]
        memory = x.new_zeros(x.shape[0], D, D) if state is None else state["memory"]
        outputs = []
        for piece in self.qkv(x).split(self.piece_length(x.shape[1]), dim=1):
            y, memory = _attend(*piece.chunk(3, dim=-1), memory)
            outputs.append(y)
        return self.out(torch.cat(outputs, dim=1)) / D, {"memory": memory}


class ChunksOfAnEighth(QuadraticForm):
    """Chunks that grow with the sequence."""

    def piece_length(self, length):
        return -(-length // 8)


class SquareRootChunks(QuadraticForm):
    """T^1.5 in the scores, far less than the linear rest at any length that is measured."""

    def piece_length(self, length):
        return round(length**0.5)


class SummariesOfAll(Honest):
    """Chunk by chunk, but each chunk adds up all the summaries before it anew."""

    chunk = 16

    def forward(self, x, state=None):
        if x.shape[1] % self.chunk or state is not None:
            return super().forward(x, state)
        q, k, v = self.qkv(x).unflatten(1, (-1, self.chunk)).chunk(3, dim=-1)  # [B, N, C, D]
        summaries = (k.mT @ v).flatten(2)  # [B, N, D * D]
        n_chunks = summaries.shape[1]
        is_before = torch.ones(n_chunks, n_chunks, device=x.device).tril(-1)
        past = (is_before.to(x.dtype) @ summaries).view(*k.shape[:2], k.shape[-1], -1)
        mixed = (q @ k.mT).tril() @ v + q @ past
        memory = (past[:, -1] + k[:, -1].mT @ v[:, -1])[:, None].float()
        return self.out(mixed.flatten(1, 2)) / x.shape[-1], {"memory": memory}


class ElementwiseMask(Honest):
    """No product anywhere: T x T comparisons."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        steps = torch.arange(x.shape[1], device=x.device)
        n_seen = (steps[:, None] >= steps).sum(dim=1)
        return y * (n_seen / n_seen)[:, None].to(y.dtype), state


class CumulativeSumOverASquare(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        n_seen = torch.ones_like(x[..., :1]).expand(-1, -1, x.shape[1]).cumsum(-1).amax(-1)
        return y * (n_seen / n_seen)[..., None], state


class _DearBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        length = grad.shape[1]
        return grad * torch.ones(length, length, device=grad.device).mean().to(grad.dtype)


class QuadraticBackward(Honest):
    def forward(self, x, state=None):
        return super().forward(_DearBackward.apply(x), state)


class QuadraticInEvaluation(QuadraticForm):
    def forward(self, x, state=None):
        if not self.training:
            return super().forward(x, state)
        q, k, v = self.qkv(x)[:, :, None].chunk(3, dim=-1)
        mixed, memory = chunk_decay(q, k, v, scale=1.0)
        return self.out(mixed[:, :, 0].to(x.dtype)) / x.shape[-1], {"memory": memory[:, 0]}


class QuadraticBeyondTraining(ElementwiseMask):
    def forward(self, x, state=None):
        long = super() if x.shape[1] > 300 else super(ElementwiseMask, self)
        return long.forward(x, state)


class QuadraticMemory(Honest):
    """Room for T x T numbers that nobody computes."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        room = x.new_empty(x.shape[1], x.shape[1])
        return y.expand_as(y) if room.numel() else y, state


class DirectLongConvolution(Honest):
    """A moving average as one convolution of length T: inputs and outputs grow linearly."""

    def forward(self, x, state=None):
        D = x.shape[-1]
        mean = x.new_zeros(x.shape[0], 1, D) if state is None else state["mean"]
        kernel = 0.9 ** torch.arange(x.shape[1], device=x.device).float()
        padded = F.pad(x.float().mT, (x.shape[1] - 1, 0))
        taps = kernel.flip(0).expand(D, 1, -1).contiguous()
        y = F.conv1d(padded, taps, groups=D).mT + 0.9 * kernel[:, None] * mean
        after = {"mean": y[:, -1:].to(x.dtype).clone()}
        return self.out(self.qkv(y.to(x.dtype)).chunk(3, dim=-1)[0]), after


class GrowingConcatenation(Honest):
    """Copies everything said so far for each piece."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        joined = y[:, :0]
        for piece in y.split(8, dim=1):
            joined = torch.cat([joined, piece], dim=1)
        return joined, state


class FusedAttention(nn.Module):
    """Softmax attention in one operator; as a convention without streaming would have it."""

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)

    def forward(self, x, state=None):
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0], {}


class PlainAttention(FusedAttention):
    def forward(self, x, state=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.mT / x.shape[2] ** 0.5
        is_later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return scores.masked_fill(is_later, -torch.inf).softmax(-1).to(v.dtype) @ v, {}


COST = {"cost"}
BLOCK = {"can_stream": False}
CHEATS = [
    (QuadraticForm, "cost", COST),
    (ChunksOfAnEighth, "cost", COST),
    (SquareRootChunks, "cost", COST),
    (SummariesOfAll, "cost", COST),
    (ElementwiseMask, "cost", COST),
    (CumulativeSumOverASquare, "cost", COST),
    (QuadraticBackward, "cost", COST),
    (QuadraticInEvaluation, "cost", COST),
    (QuadraticBeyondTraining, "cost", COST),
    (QuadraticMemory, "cost", COST),
    (DirectLongConvolution, "cost", COST),
    (GrowingConcatenation, "cost", COST),
    (FusedAttention, "cost", COST, BLOCK),
    (PlainAttention, "cost", COST, BLOCK),
]


@pytest.mark.parametrize(
    ("cheat", "first", "failing", "options"),
    [(*row[:3], row[3] if len(row) > 3 else {}) for row in CHEATS],
    ids=[cheat.__name__ for cheat, *_ in CHEATS],
)
def test_a_dear_mixer_fails_the_cost_gate_and_passes_without(
    cheat, first, failing, options, make_probe
):
    check_cheat(lambda: make_probe(cheat, **options), first, failing)


def test_a_reference_may_cost_what_it_likes(make_probe, config):
    probe = make_probe(PlainAttention, is_reference=True)

    (result,) = run_gates(probe, config, seed=0, gates={"cost": GATES["cost"]})

    assert result.passed is None
    assert "reference" in result.reason


class _Hidden(torch.autograd.Function):
    """T x T numbers made where no dispatch mode looks."""

    @staticmethod
    def forward(ctx, x):
        return _Hidden.work(x)

    @staticmethod
    def backward(ctx, grad):
        return _Hidden.work(grad)

    @staticmethod
    def work(x):
        with _disable_current_modes():
            square = torch.ones(x.shape[1], x.shape[1])
            return x * square.exp().mean() / torch.e


class HidesItsWork(Honest):
    def forward(self, x, state=None):
        return super().forward(_Hidden.apply(x), state)


class IndexesInALoop(Honest):
    """Linear by itself; autograd fills zeros of length T for each token that is picked."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return torch.stack([y[:, t] for t in range(y.shape[1])], dim=1), state


class Timed:
    """A probe whose process took `cpu_s(length)` seconds, and `waiting` times that by the clock."""

    def __init__(self, probe, cpu_s, waiting=1.0):
        self.facts = probe.facts
        self._probe, self._cpu_s, self._waiting = probe, cpu_s, waiting

    def cost(self, length):
        cpu_s = self._cpu_s(length)
        return replace(self._probe.cost(length), cpu_s=cpu_s, wall_s=cpu_s * self._waiting)


@pytest.mark.parametrize(
    ("mixer", "power", "waiting", "passed"),
    [
        (HidesItsWork, 2, 1.0, False),
        (HidesItsWork, 2, 3.0, True),  # a busy machine: nobody can say
        (HidesItsWork, 1.2, 1.0, True),
        (IndexesInALoop, 2, 1.0, True),  # what was counted explains it
    ],
)
def test_time_that_no_count_explains_is_hidden_work(
    mixer, power, waiting, passed, make_probe, config
):
    probe = Timed(make_probe(mixer), lambda length: 0.1 * (length / 1024) ** power, waiting)

    (result,) = run_gates(probe, config, seed=0, gates={"cost": GATES["cost"]})

    assert result.passed is passed
    assert passed or "hidden from counting" in result.reason


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([10, 20, 40], 1.0),
        ([1010, 1020, 1040], 1.0),  # a constant beside it changes nothing
        ([5, 15, 35], 1.0),
        ([1, 4, 16], 2.0),
        ([1, 2**1.5, 2**3], 1.5),
        ([7, 7, 7], None),
        ([9, 3, 1], None),
    ],
)
def test_the_exponent_is_the_growths(counts, expected):
    assert exponent(*counts) == (None if expected is None else pytest.approx(expected))


def test_lengths_go_beyond_training_and_any_chunk(make_probe):
    def lengths(**options):
        return cost_lengths(make_probe(Honest, **options).facts)

    assert lengths(seq_len=128) == (256, 512, 1024)
    assert lengths(seq_len=1000) == (512, 1024, 2048)
    assert lengths(seq_len=128, chunk_sizes=(64, 1024)) == (512, 1024, 2048)
    assert lengths(seq_len=8192) == (1024, 2048, 4096)


@pytest.mark.parametrize(
    ("cpu_s_a_token", "lengths"), [(5e-5, [256, 512, 1024, 4096]), (5e-3, [64, 128, 256])]
)
def test_a_slow_loop_is_counted_over_fewer_tokens(cpu_s_a_token, lengths, make_probe, config):
    probe = Timed(make_probe(Honest), lambda length: cpu_s_a_token * length)

    (result,) = run_gates(probe, config, seed=0, gates={"cost": GATES["cost"]})

    assert result.passed
    assert result.evidence["lengths"] == lengths
