"""Sound mixers of many kinds: a gate that stops one of these raises a false alarm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from linearch.evaluator.gates import DEVICE_GATES, GATES, run_gates


class TokenWise(nn.Module):
    """No memory at all: an empty state."""

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, 2 * d_model)
        self.down = nn.Linear(2 * d_model, d_model)

    def forward(self, x, state=None):
        return self.down(F.gelu(self.up(x))), {}


class MovingAverage(nn.Module):
    """One decay a channel, stepped by a loop, with a counter that corrects the start."""

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0, 4, d_model))

    def forward(self, x, state=None):
        mean = torch.zeros_like(x[:, 0]).float() if state is None else state["mean"]
        position = torch.zeros((), dtype=torch.int64) if state is None else state["position"]
        rate = self.decay.sigmoid()
        outputs = []
        for token in x.unbind(1):
            mean = rate * mean + (1 - rate) * token
            position = position + 1
            outputs.append(mean / (1 - rate**position))
        return torch.stack(outputs, dim=1).to(x.dtype), {"mean": mean, "position": position}


class ShortConvolution(nn.Module):
    width = 4

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(d_model, 1, self.width) / 2)
        self.bias = nn.Parameter(torch.full((d_model,), 100.0))  # far from zero mean

    def forward(self, x, state=None):
        last = (
            x.new_zeros(x.shape[0], self.width - 1, x.shape[2]) if state is None else state["last"]
        )
        padded = torch.cat([last, x], dim=1)
        y = F.conv1d(padded.mT, self.kernel, self.bias, groups=x.shape[2]).mT
        return y, {"last": padded[:, x.shape[1] :].clone()}


class LongConvolution(nn.Module):
    """Through a zero-padded FFT: later tokens change earlier outputs by rounding alone."""

    width = 64

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(self.width, d_model) / 8)

    def forward(self, x, state=None):
        last = (
            x.new_zeros(x.shape[0], self.width - 1, x.shape[2]) if state is None else state["last"]
        )
        padded = torch.cat([last, x], dim=1)
        n = padded.shape[1] + self.width
        spectrum = torch.fft.rfft(padded.float(), n=n, dim=1) * torch.fft.rfft(
            self.kernel, n=n, dim=0
        )
        y = torch.fft.irfft(spectrum, n=n, dim=1)[:, self.width - 1 : padded.shape[1]]
        return y.to(x.dtype), {"last": padded[:, x.shape[1] :].clone()}


class NormalisedLinearAttention(nn.Module):
    """Chunks of eight by hand, a ragged last one included; the kernel's normaliser as a column."""

    def __init__(self, d_model: int, n_heads: int, *_: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)

    def forward(self, x, state=None):
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4).float()
        v = F.pad(qkv[2], (0, 1), value=1.0)
        q, k = (F.elu(part) + 1 for part in qkv[:2])
        memory = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
        memory = memory if state is None else state["memory"]
        outputs = []
        for q_, k_, v_ in zip(*(part.split(8, dim=2) for part in (q, k, v)), strict=True):
            outputs.append((q_ @ k_.mT).tril() @ v_ + q_ @ memory)
            memory = memory + (k_.mT @ v_).float()
        mixed = torch.cat(outputs, dim=2)
        y = mixed[..., :-1] / mixed[..., -1:]
        return y.transpose(1, 2).flatten(2).to(x.dtype), {"memory": memory}


class DeltaRule(nn.Module):
    """Erases before it writes, token by token, with steps beyond one (negative eigenvalues)."""

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.step = nn.Linear(d_model, 1)

    def forward(self, x, state=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        k, beta = F.normalize(k, dim=-1), 2 * self.step(x).sigmoid()
        memory = (
            x.new_zeros(x.shape[0], x.shape[2], x.shape[2]) if state is None else state["memory"]
        )
        outputs = []
        for t in range(x.shape[1]):
            error = v[:, t] - torch.einsum("bk,bkv->bv", k[:, t], memory)
            memory = memory + torch.einsum("bk,bv->bkv", k[:, t], beta[:, t] * error)
            outputs.append(torch.einsum("bk,bkv->bv", q[:, t], memory))
        return torch.stack(outputs, dim=1), {"memory": memory}


class GatedRecurrence(nn.Module):
    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.cell = nn.GRU(d_model, d_model, batch_first=True)

    def forward(self, x, state=None):
        y, hidden = self.cell(x, None if state is None else state["hidden"])
        return y, {"hidden": hidden}


class DropoutInTraining(TokenWise):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return F.dropout(y, 0.3, self.training), state


class ClosedBranch(TokenWise):
    """A branch behind a gate initialised at zero, and a clamp that no input moves."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.gate = nn.Parameter(torch.zeros(d_model))
        self.floor = nn.Parameter(torch.full((), -30.0))

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y + self.gate * x + self.floor.clamp(min=-20)).to(x.dtype), state


class FullAttention(nn.Module):
    """Keeps every key: sound as a reference alone."""

    def __init__(self, d_model: int, *_: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)

    def forward(self, x, state=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if state is not None:
            k, v = torch.cat([state["k"], k], 1), torch.cat([state["v"], v], 1)
        scores = q @ k.mT / x.shape[2] ** 0.5
        is_later = torch.ones_like(scores, dtype=torch.bool).triu(1 + k.shape[1] - q.shape[1])
        return scores.masked_fill(is_later, -torch.inf).softmax(-1) @ v, {"k": k, "v": v}


SOUND = [
    TokenWise,
    MovingAverage,
    ShortConvolution,
    LongConvolution,
    NormalisedLinearAttention,
    DeltaRule,
    GatedRecurrence,
    DropoutInTraining,
    ClosedBranch,
]
GATES_AT_ANY_LENGTH = {name: gate for name, gate in GATES.items() if name != "cost"}


@pytest.mark.parametrize("mixer", SOUND)
def test_a_sound_mixer_passes_every_gate(mixer, make_probe, config):
    results = run_gates(make_probe(mixer), config, seed=5)

    assert [result.gate for result in results] == list(GATES)
    assert [(r.gate, r.reason) for r in results if not r.passed] == []
    assert all(r.duration_s is not None for r in results)


@pytest.mark.parametrize("seq_len", [8, 61])
@pytest.mark.parametrize("mixer", SOUND)
def test_a_sound_mixer_passes_at_odd_training_lengths(mixer, seq_len, make_probe, config):
    results = run_gates(make_probe(mixer, seq_len=seq_len), config, 5, GATES_AT_ANY_LENGTH)

    assert [(r.gate, r.reason) for r in results if not r.passed] == []


@pytest.mark.parametrize("mixer", SOUND)
def test_a_sound_mixer_passes_in_bfloat16(mixer, make_probe, config):
    results = run_gates(make_probe(mixer, precision="bf16"), config, 5, DEVICE_GATES)

    assert [result.gate for result in results] == list(DEVICE_GATES)
    assert [(r.gate, r.reason) for r in results if not r.passed] == []


def test_a_growing_cache_passes_for_a_reference_mixer_alone(make_probe, config):
    reference = run_gates(make_probe(FullAttention, is_reference=True), config, seed=5)
    candidate = run_gates(make_probe(FullAttention), config, seed=5)

    assert [r.gate for r in reference if not r.passed] == ["cost"]
    assert reference[-1].passed is None
    assert candidate[-1].gate == "streaming"
    assert "after 128 tokens at once" in candidate[-1].reason


def test_a_convention_without_streaming_is_not_asked_for_it(make_probe, config):
    results = run_gates(make_probe(NormalisedLinearAttention, can_stream=False), config, seed=5)

    unasked = {result.gate: result.reason for result in results if result.passed is None}
    assert list(unasked) == ["streaming"]
    assert "no streaming" in unasked["streaming"]
    assert [result.gate for result in results] == list(GATES)
