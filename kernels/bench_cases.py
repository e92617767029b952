"""What `linearch bench kernels` times: every operation on fresh random inputs of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import (
    activation,
    add_bonus,
    add_rms_norm,
    causal_attention,
    chunk_decay,
    chunk_delta,
    chunk_dplr,
    chunk_oja,
    gated_product,
    linear_cross_entropy,
    rms_norm,
    rotary,
    scaled_heads,
    scan,
    short_convolution,
    swiglu,
    token_shift,
)
from .forms import Form, runs_triton

Shape = tuple[int, int, int, int]  # [B, T, H, K = V]

SHAPES_ON_GPU: tuple[Shape, ...] = ((32, 2048, 16, 128), (2, 32768, 16, 128), (32, 2048, 8, 64))
SHAPES_ON_CPU: tuple[Shape, ...] = ((8, 128, 2, 32),)
_LONGEST_ATTENTION = 4096  # tokens; its torch forms are quadratic in them
_MOST_SCORES = 2**29  # that they hold at once where scores decay, several times, in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One operation: `call(form=...)` returns its output, or it and a state."""

    operation: str
    shape: Shape
    leaves: list[Tensor]  # what gets a gradient
    call: Callable[..., Any]
    others: tuple[Tensor, ...] = ()  # inputs without a gradient
    is_packed: bool = False  # a CUDA graph cannot record the call, which reads boundaries


def cases(
    shape: Shape,
    device: torch.device,
    operations: tuple[str, ...] = (),
    form: Form | None = None,
) -> Iterator[Case]:
    """Those whose names begin with one of `operations`; all of them if it is empty.

    On a GPU bfloat16 activations and float32 gates and weights, as a layer under autocast gives
    them; float32 on a CPU. Made one at a time: at the large shapes few fit at once. Attention too
    long for the form is left out.
    """
    fused = form == "triton" and runs_triton(device)
    for name in operation_names(operations):
        if fused or _fits_torch(name, shape):
            leaves, call, *others = _MAKERS[name](_Inputs(shape, device))
            yield Case(
                operation=name,
                shape=shape,
                leaves=leaves,
                call=call,
                others=tuple(others),
                is_packed=name.startswith("packed"),
            )


def operation_names(beginnings: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Of all operations, or of those that begin so."""
    return tuple(name for name in _MAKERS if name.startswith(beginnings or ("",)))


def _fits_torch(name: str, shape: Shape) -> bool:
    if not name.startswith("attention"):
        return True
    B, T, H, _ = shape
    holds_scores = name == "attention decay"
    return T <= _LONGEST_ATTENTION and (not holds_scores or B * H * T * T <= _MOST_SCORES)


@dataclass(frozen=True, slots=True)
class _Inputs:
    shape: Shape
    device: torch.device

    def unit(self, *shape: int) -> Tensor:
        """Rows of norm 1."""
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        x = F.normalize(torch.randn(shape, device=self.device, dtype=dtype), dim=-1)
        return x.requires_grad_()

    def weight(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device).requires_grad_()

    def gate(self, *shape: int) -> Tensor:
        """Log decays between -0.1 and 0."""
        return (-0.1 * torch.rand(shape, device=self.device)).requires_grad_()

    def bounds(self) -> Tensor:
        """Where B sequences of T tokens in the mean begin and end: log-normal lengths, sigma 1."""
        B, T = self.shape[:2]
        sizes = torch.special.ndtri((torch.arange(B, dtype=torch.float64) + 0.5) / B).exp()
        sizes = sizes[torch.randperm(B, generator=torch.Generator().manual_seed(0))]
        ends = B * T * (sizes.cumsum(0) / sizes.sum())
        return F.pad(ends.round().long(), (1, 0))

    def qkv(self) -> list[Tensor]:
        return [self.unit(*self.shape) for _ in range(3)]

    def sequence(self) -> Tensor:
        return self.unit(*self.shape[:2], self.width)

    @property
    def width(self) -> int:
        return self.shape[2] * self.shape[3]


Made = tuple[Any, ...]  # leaves, call, other inputs


def _decay(kind: str, x: _Inputs) -> Made:
    shapes = {"constant": (x.shape[2],), "scalar": x.shape[:3], "channel": x.shape}
    leaves = x.qkv() + ([x.gate(*shapes[kind])] if kind in shapes else [])
    return leaves, partial(chunk_decay, *leaves)


def _delta(kind: str, x: _Inputs) -> Made:
    shapes = {"scalar": x.shape[:3], "channel": x.shape}
    leaves = [*x.qkv(), x.weight(*x.shape[:3])]
    leaves += [x.gate(*shapes[kind])] if kind in shapes else []
    return leaves, partial(chunk_delta, *leaves)


def _delta_value(x: _Inputs) -> Made:
    leaves = [*x.qkv(), x.weight(*x.shape[:3]), x.gate(*x.shape)]
    *others, gate = leaves
    return leaves, partial(chunk_delta, *others, value_log_decay=gate)


def _packed(make: Callable[[_Inputs], Made], x: _Inputs) -> Made:
    """As many sequences and tokens as the shape has, of unequal lengths in one row."""
    B, T, H, K = x.shape
    leaves, call = make(_Inputs((1, B * T, H, K), x.device))
    bounds = x.bounds()
    # Ours are read on the host, the peer's on the device.
    return leaves, partial(call, cu_seqlens=bounds), bounds, bounds.to(x.device)


def _dplr(kind: str, x: _Inputs) -> Made:
    """As RWKV-7 calls it: b takes away half of what the state held under a, a unit key."""
    shapes = {"scalar": x.shape[:3], "channel": x.shape}
    a = x.unit(*x.shape)
    leaves = [*x.qkv(), a, (-0.5 * a).detach().requires_grad_()]
    leaves += [x.gate(*shapes[kind])] if kind in shapes else []
    return leaves, partial(chunk_dplr, *leaves)


def _value_decay(x: _Inputs) -> Made:
    leaves = [*x.qkv(), x.gate(*x.shape)]
    *qkv, gate = leaves
    return leaves, partial(chunk_decay, *qkv, value_log_decay=gate)


def _oja(kind: str, x: _Inputs) -> Made:
    leaves = [*x.qkv(), x.weight(*x.shape[:3])]
    leaves += [x.gate(*x.shape[:3])] if kind == "scalar" else []
    return leaves, partial(chunk_oja, *leaves)


def _attention(window: int | None, x: _Inputs) -> Made:
    leaves = x.qkv()
    return leaves, partial(causal_attention, *leaves, window=window)


def _decaying_attention(x: _Inputs) -> Made:
    leaves = [*x.qkv(), x.gate(*x.shape[:3])]
    return leaves, partial(causal_attention, *leaves)


def _scan(x: _Inputs) -> Made:
    leaves = [x.sequence(), x.gate(*x.shape[:2], x.width)]
    return leaves, partial(scan, *leaves)


def _convolution(x: _Inputs) -> Made:
    leaves = [x.sequence(), x.weight(x.width, 4)]
    return leaves, partial(short_convolution, *leaves, activation="silu")


def _unit_heads(x: _Inputs) -> Made:
    leaves, call = _convolution(x)
    return leaves, partial(call, normalise=x.width, head_dim=x.shape[3])


def _norm(x: _Inputs) -> Made:
    leaves = [x.sequence(), x.weight(x.width)]
    return leaves, partial(rms_norm, *leaves)


def _gated_norm(x: _Inputs) -> Made:
    """Over each head's output, as the layers have it."""
    leaves = [x.unit(*x.shape), x.weight(x.shape[3]), x.unit(*x.shape)]
    y, weight, gate = leaves
    return leaves, partial(rms_norm, y, weight, gate=gate)


def _residual_norm(x: _Inputs) -> Made:
    """Of what a block adds to the float32 stream, in the block's dtype."""
    added, weight = x.sequence(), x.weight(x.width)
    stream = torch.randn(added.shape, device=x.device).requires_grad_()
    call = partial(add_rms_norm, added, stream, weight, out_dtype=added.dtype)
    return [added, stream, weight], call


def _gated_product(x: _Inputs) -> Made:
    """The gate is a slice of a wider projection, as the mixers have it."""
    y, packed = x.sequence(), x.unit(*x.shape[:2], 2 * x.width)
    return [y, packed], partial(gated_product, y, packed[..., : x.width])


def _swiglu(x: _Inputs) -> Made:
    packed = x.unit(*x.shape[:2], 2 * x.width)
    return [packed], partial(swiglu, packed)


def _bonus(x: _Inputs) -> Made:
    leaves = [x.unit(*x.shape), *x.qkv(), x.weight(*x.shape[2:])]
    return leaves, partial(add_bonus, *leaves)


def _rotary(x: _Inputs) -> Made:
    heads = x.unit(*x.shape)
    return [heads], partial(rotary, heads, torch.tensor(0, device=x.device))


def _strengths(x: _Inputs) -> Made:
    """One key for all heads, each with a strength of its own."""
    B, T, H, K = x.shape
    leaves = [x.unit(B, T, 1, K), x.weight(B, T, H)]
    return leaves, partial(scaled_heads, *leaves)


def _token_shift(x: _Inputs) -> Made:
    """One blend, whose shares each token moves."""
    leaves = [x.sequence(), x.weight(1, x.width), x.unit(1, *x.shape[:2], x.width)]
    y, shares, offsets = leaves

    def one_blend(form: Form | None = None) -> Tensor:
        (blend,), _ = token_shift(y, shares, offsets=offsets, form=form)
        return blend

    return leaves, one_blend


def _activation(x: _Inputs) -> Made:
    """A log decay for each channel, in float32, of a projection."""
    leaves = [x.sequence(), x.weight(x.width)]
    y, bias = leaves
    call = partial(activation, y, "softplus", bias=bias, rate=-0.5, out_dtype=torch.float32)
    return leaves, call


def _head_and_loss(x: _Inputs) -> Made:
    vocabulary = 256 if x.device.type == "cpu" else 32768
    rows = x.shape[0] * x.shape[1]
    hidden, head = x.unit(rows, x.width), x.unit(vocabulary, x.width)
    targets = torch.randint(0, vocabulary, (rows,), device=x.device)
    return [hidden, head], partial(linear_cross_entropy, hidden, head, targets), targets


_MAKERS: dict[str, Callable[[_Inputs], Made]] = {
    "decay none": partial(_decay, "none"),
    "decay constant": partial(_decay, "constant"),
    "decay scalar": partial(_decay, "scalar"),
    "decay channel": partial(_decay, "channel"),
    "decay value": _value_decay,
    "delta none": partial(_delta, "none"),
    "delta scalar": partial(_delta, "scalar"),
    "delta channel": partial(_delta, "channel"),
    "delta value": _delta_value,
    "dplr none": partial(_dplr, "none"),
    "dplr scalar": partial(_dplr, "scalar"),
    "dplr channel": partial(_dplr, "channel"),
    "oja none": partial(_oja, "none"),
    "oja scalar": partial(_oja, "scalar"),
    "packed decay scalar": partial(_packed, partial(_decay, "scalar")),
    "packed delta scalar": partial(_packed, partial(_delta, "scalar")),
    "attention full": partial(_attention, None),
    "attention window 64": partial(_attention, 64),
    "attention decay": _decaying_attention,
    "scan": _scan,
    "short convolution": _convolution,
    "short convolution, unit heads": _unit_heads,
    "norm": _norm,
    "norm, gated": _gated_norm,
    "norm, residual": _residual_norm,
    "gated product": _gated_product,
    "swiglu": _swiglu,
    "bonus": _bonus,
    "rotary": _rotary,
    "strengths": _strengths,
    "token shift": _token_shift,
    "activation": _activation,
    "head and loss": _head_and_loss,
}
