"""Sound mixers that come near a gate's limit: loud, quiet, selective, complex, log-deep, routed."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from honest_mixer import Honest
from torch import nn

from linearch.evaluator.gates import DEVICE_GATES, GATES, run_gates
from linearch.kernels import causal_attention, chunk_delta, l2_norm, rotary, scan


class SlidingWindow(Honest):
    """Softmax over the last sixteen tokens."""

    window = 16

    def forward(self, x, state=None):
        q, k, v = self.qkv(x)[:, :, None].chunk(3, dim=-1)
        past = None if state is None else (state["k"], state["v"], state["n"])
        o, (k, v, n) = causal_attention(q, k, v, window=self.window, past=past)
        return self.out(o[:, :, 0]), {"k": k, "v": v, "n": n}


class TopOfTheWindow(Honest):
    """Only the four best of the last sixteen tokens count."""

    window = 16

    def forward(self, x, state=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        fresh = x.new_zeros(x.shape[0], self.window - 1, 2 * x.shape[-1])
        past = fresh if state is None else state["past"]
        n_seen = torch.zeros((), dtype=torch.int64) if state is None else state["n_seen"]
        joined = torch.cat([past, torch.cat([k, v], dim=-1)], dim=1)
        keys, values = joined.unfold(1, self.window, 1).mT.chunk(2, dim=-1)  # [B, T, W, D]
        scores = torch.einsum("btd,btwd->btw", q.float(), keys.float()) / x.shape[-1] ** 0.5
        steps = n_seen + torch.arange(x.shape[1])[:, None] + torch.arange(self.window)
        scores = scores.masked_fill(steps < self.window - 1, -1e9)
        floor = scores.topk(4, dim=-1).values[..., -1:]
        weights = scores.masked_fill(scores < floor, -1e9).softmax(dim=-1)
        o = torch.einsum("btw,btwd->btd", weights.to(x.dtype), values)
        after = {"past": joined[:, x.shape[1] :].clone(), "n_seen": n_seen + x.shape[1]}
        return self.out(o).to(x.dtype), after


class SelectiveScan(Honest):
    """S6: step sizes, inputs and readings chosen by the token; a loop over time."""

    width = 4

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.select = nn.Linear(d_model, 2 * self.width + d_model)
        self.rate = nn.Parameter(torch.arange(1, self.width + 1).float().log())

    def forward(self, x, state=None):
        B, _, D = x.shape
        put, read, step = self.select(x).float().split([self.width, self.width, D], dim=-1)
        step = F.softplus(step)
        kept = torch.exp(-step[..., None] * self.rate.exp())  # [B, T, D, N]
        written = (step * x.float())[..., None] * put[:, :, None]
        hidden = x.new_zeros(B, D, self.width).float() if state is None else state["hidden"]
        outputs = []
        steps = zip(kept.unbind(1), written.unbind(1), read.unbind(1), strict=True)
        for keep, write, reading in steps:
            hidden = keep * hidden + write
            outputs.append((hidden * reading[:, None]).sum(-1))
        y = torch.stack(outputs, dim=1)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(y.to(x.dtype) * F.silu(q) + k * v), {"hidden": hidden}


class ComplexPoles(Honest):
    """LRU: turning and shrinking complex states, as a product of powers inside short pieces."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.angle = nn.Parameter(torch.linspace(0.1, 3.0, d_model))
        self.radius = nn.Parameter(torch.linspace(1.0, 3.0, d_model))

    def forward(self, x, state=None):
        D = x.shape[-1]
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        real, imaginary = k.float(), v.float()
        log_r = F.logsigmoid(self.radius)
        turn = torch.stack([self.angle.cos(), self.angle.sin()]) * log_r.exp()
        a = x.new_zeros(x.shape[0], D).float() if state is None else state["a"]
        b = x.new_zeros(x.shape[0], D).float() if state is None else state["b"]
        outputs = []
        for u, w in zip(real.unbind(1), imaginary.unbind(1), strict=True):
            a, b = a * turn[0] - b * turn[1] + u, a * turn[1] + b * turn[0] + w
            outputs.append(a - b)
        y = torch.stack(outputs, dim=1).to(x.dtype) * q
        return self.out(y), {"a": a, "b": b}


class NegativeEigenvalues(Honest):
    """The delta rule with steps up to two, through the library's kernel."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.step = nn.Linear(d_model, 1)

    def forward(self, x, state=None):
        q, k, v = self.qkv(x)[:, :, None].chunk(3, dim=-1)
        past = None if state is None else state["memory"]
        beta = 2 * self.step(x).sigmoid()
        o, memory = chunk_delta(l2_norm(q), l2_norm(k), v, beta, initial_state=past)
        return self.out(o[:, :, 0]), {"memory": memory}


class Loud(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return 1e4 * y, state


class Quiet(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return 1e-4 * y, state


class Offset(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y.clamp(-9, 9) + 10, state


class UnequalChannels(Honest):
    """A thousand times louder at one end than at the other."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y * torch.logspace(-1.5, 1.5, x.shape[-1]).to(y.dtype), state


class EveryLayerAnother(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return (y.tanh() if self.layer_idx == 0 else y * x), state


class RoutedExperts(Honest):
    """Each token is worked on by the better one of two experts, and by no more."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.router = nn.Linear(d_model, 2)
        self.experts = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(2))

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        weights = self.router(x.float()).softmax(dim=-1)
        chosen = F.one_hot(weights.argmax(dim=-1), 2) * weights
        for i, expert in enumerate(self.experts):
            y = y + (chosen[..., i : i + 1] * expert(x)).to(x.dtype)
        return y, state


class RotaryWithACounter(Honest):
    def forward(self, x, state=None):
        start = x.new_zeros((), dtype=torch.int64) if state is None else state["position"]
        turned = rotary(x[:, :, None], start)[:, :, 0]
        inner = None if state is None else {"memory": state["memory"]}
        y, after = super().forward(turned, inner)
        return y, {**after, "position": start + x.shape[1]}


class CachedTable(Honest):
    """Keeps a table in a plain attribute, made on the first call: small, and a constant."""

    slopes = None

    def forward(self, x, state=None):
        if self.slopes is None:
            self.slopes = torch.linspace(0.5, 1, x.shape[-1], device=x.device)
        y, state = super().forward(x, state)
        return y * self.slopes.to(y.dtype), state


class LowPrecisionInside(Honest):
    """Projects in bfloat16 whatever comes in: coarse, but the same however it is fed."""

    def forward(self, x, state=None):
        coarse = x.bfloat16().to(x.dtype)
        return super().forward(coarse, state)


class DoublingScan(Honest):
    """A decayed sum in log2(T) sweeps: T log T work."""

    def forward(self, x, state=None):
        q, k, v = self.qkv(x).float().chunk(3, dim=-1)
        past = torch.zeros_like(k[:, :1]) if state is None else state["sum"]
        total, rate, reach = torch.cat([past, k * v], dim=1), 0.9, 1
        while reach < total.shape[1]:
            shifted = F.pad(total[:, :-reach], (0, 0, reach, 0))
            total, reach = total + rate**reach * shifted, 2 * reach
        after = {"sum": total[:, -1:].clone()}
        return self.out((total[:, 1:] * q.sigmoid()).to(x.dtype)), after


class SpectralConvolution(Honest):
    """An exponential kernel of the whole length through an FFT; decoding steps its recurrence."""

    rate = 0.9

    def forward(self, x, state=None):
        q, k, v = self.qkv(x).float().chunk(3, dim=-1)
        u, T = k * v, x.shape[1]
        past = torch.zeros_like(u[:, :1]) if state is None else state["sum"]
        powers = self.rate ** torch.arange(1, T + 1, dtype=torch.float32)[:, None]
        spectrum = torch.fft.rfft(u, n=2 * T, dim=1)
        kernel = torch.fft.rfft(powers / self.rate, n=2 * T, dim=0)
        y = torch.fft.irfft(spectrum * kernel, n=2 * T, dim=1)[:, :T] + powers * past
        return self.out((y * q.sigmoid()).to(x.dtype)), {"sum": y[:, -1:].clone()}


class RunningMaximum(Honest):
    def forward(self, x, state=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        top = torch.full_like(k[:, :1], -9.0) if state is None else state["top"]
        top = torch.cat([top, k], dim=1).cummax(dim=1).values
        return self.out(top[:, 1:] * q + v), {"top": top[:, -1:].clone()}


class ElementwiseScan(Honest):
    """h = f h + (1 - f) v with a forget gate of the token's choosing."""

    def forward(self, x, state=None):
        q, f, v = self.qkv(x).chunk(3, dim=-1)
        past = None if state is None else state["hidden"]
        keep = F.logsigmoid(f.float() + 2)
        y, hidden = scan(-torch.expm1(keep) * v.float(), keep, initial_state=past)
        return self.out((y * F.silu(q.float())).to(x.dtype)), {"hidden": hidden}


class ForgettingMemory(Honest):
    """Delta-free fast weights written by outer products, stepped token by token by index."""

    def forward(self, x, state=None):
        D = x.shape[-1]
        q, k, v = self.qkv(x).float().chunk(3, dim=-1)
        memory = k.new_zeros(x.shape[0], D, D) if state is None else state["memory"]
        outputs = []
        for t in range(x.shape[1]):
            memory = 0.95 * memory + k[:, t, :, None] * v[:, t, None]
            outputs.append((memory * q[:, t, :, None]).sum(1))
        y = torch.stack(outputs, dim=1) / math.sqrt(D)
        return self.out(y.to(x.dtype)), {"memory": memory}


class SteepFunctionOfALongSum(nn.Module):
    """Nearly a sign: the rounding of the sum shows wherever it changes."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__()
        self.proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x, state=None):
        total = x.cumsum(1) if state is None else state["sum"] + x.cumsum(1)
        return torch.tanh(5 * self.proj(total)), {"sum": total[:, -1:].clone()}


SOUND = [
    SlidingWindow,
    TopOfTheWindow,
    SelectiveScan,
    ComplexPoles,
    NegativeEigenvalues,
    Loud,
    Quiet,
    Offset,
    UnequalChannels,
    EveryLayerAnother,
    RoutedExperts,
    RotaryWithACounter,
    CachedTable,
    LowPrecisionInside,
    DoublingScan,
    SpectralConvolution,
    RunningMaximum,
    ElementwiseScan,
    SteepFunctionOfALongSum,
    ForgettingMemory,
]


@pytest.mark.parametrize("mixer", SOUND)
def test_a_sound_mixer_passes_every_gate(mixer, make_probe, config):
    results = run_gates(make_probe(mixer), config, seed=5)

    assert [(r.gate, r.reason) for r in results if not r.passed] == []
    assert [result.gate for result in results] == list(GATES)


def test_what_rounding_alone_changes_is_asked_again_in_float64(make_probe, config):
    strict = config.model_copy(update={"tolerance": 3e-5})
    gates = {"streaming": GATES["streaming"]}
    (result,) = run_gates(make_probe(SteepFunctionOfALongSum), strict, 1, gates)

    assert result.passed
    assert result.evidence["relative_in_float32"] > result.evidence["limit"]
    assert result.evidence["relative"] < result.evidence["limit"] / 100


@pytest.mark.parametrize("mixer", SOUND)
def test_a_sound_mixer_passes_in_bfloat16(mixer, make_probe, config):
    results = run_gates(make_probe(mixer, precision="bf16"), config, 5, DEVICE_GATES)

    assert [(r.gate, r.reason) for r in results if not r.passed] == []
    assert [result.gate for result in results] == list(DEVICE_GATES)
