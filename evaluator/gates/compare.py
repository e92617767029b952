"""Asking a probe for an answer of the right form, and measuring how far two answers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...config import GateConfig
from .probe import MixerProbe, Precision, ProbeFailed


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How much of the setting for its precision a comparison is allowed."""

    fp32: float
    bf16: float


# Two calls of one shape run the same arithmetic in the same order, so rows that do not
# depend on what was changed come out equal to the bit, or (a long convolution through an FFT, a
# chunk's decays split at its middle) within 2e-6. A tenth of the setting is above that and far
# below any leak worth having; the runner asks again where one token is beyond. In bfloat16 one such
# rounding that tips a value over makes a whole step of 2^-8 of it, 2e-2 of the spread for the
# largest values.
SAME_SHAPE = Share(fp32=0.1, bf16=1.0)
# Where later tokens of a row change, a kernel may take another form for the chunk that they share
# with earlier ones, as decays grow too strong to be split. 3.3e-2 in bfloat16 was seen of a trained
# RWKV-6, and 2e-6 in float32.
OTHER_TOKENS = Share(fp32=0.1, bf16=3.0)
# Another batch size or length makes BLAS and the chunked forms add up in another order: at most
# 2e-5 of the output over the library and 300 grammar genomes, 4e-2 where bfloat16 is stepped.
OTHER_SHAPE = Share(fp32=1.0, bf16=3.0)
# Pieces run other forms altogether: a one-token step against a chunk whose decays were split into
# two exponentials (3e-5 seen). A state rounded to half precision (5e-4 and more) is still caught.
# In bfloat16 products by hand under autocast reach 0.09: there this only tells a past that is
# carried from one that is not.
OTHER_FORM = Share(fp32=3.0, bf16=10.0)

# Below this an output counts as constant, and any difference as a full one.
_SMALLEST_SCALE = 1e-12
# A channel with less than this share of the others' spread is measured by theirs: what is left of
# large numbers that cancel carries their rounding.
_QUIET_CHANNEL = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The largest difference between two answers, as a share of the channel's own spread."""

    relative: float
    row: int
    position: int
    channel: int

    def evidence(self) -> dict[str, Any]:
        return {
            "relative": self.relative,
            "row": self.row,
            "position": self.position,
            "channel": self.channel,
        }


def tolerated(probe: MixerProbe, config: GateConfig, share: Share) -> float:
    """The largest difference allowed in the probe's precision."""
    if probe.facts.precision == "bf16":
        return share.bf16 * config.tolerance_bf16
    return share.fp32 * config.tolerance


def ask(probe: MixerProbe, x: Tensor, *, train: bool = False) -> Tensor:
    """The mixer's answer to x, checked; an answer of a wrong form is the mixer's failure."""
    y = probe.forward(x, train=train)
    if flaw := find_flaw(y, x):
        raise ProbeFailed("protocol", flaw)
    return y


def find_flaw(y: Tensor, x: Tensor) -> str | None:
    """What is wrong with the form of y as an answer to x [B, T, D], as a sentence, or None."""
    if y.shape != x.shape:
        return f"forward returned shape {tuple(y.shape)} for x of shape {tuple(x.shape)}"
    if y.dtype != x.dtype:
        return f"forward returned {_dtype_name(y)} for x of {_dtype_name(x)}"
    is_finite = y.isfinite()
    if not is_finite.all():
        row, position, channel = (~is_finite).nonzero()[0].tolist()
        value = y[row, position, channel].item()
        return f"forward returned {value} at position {position} of {x.shape[1]} (row {row})"
    return None


def largest_difference(
    a: Tensor,
    b: Tensor,
    where: Tensor | None = None,
    like: Tensor | None = None,
    precision: Precision = "fp32",
) -> Difference:
    """Where a and b [B, T, D] differ most, among the positions in the mask `where` [B, T].

    Each channel is measured by its own spread in `like` (a longer answer than a, or else a), so
    that a loud one hides nothing in a quiet one. In bfloat16, where what is large is rounded
    coarsely, a position that is loud in most channels is measured by that instead.
    """
    a, b = a.double(), b.double()
    scales = _channel_scales(a if like is None else like.double())  # [D]
    if precision == "bf16":
        scales = scales.maximum(a.abs().median(dim=-1, keepdim=True).values)  # [B, T, D]
    gap = (a - b).abs() / scales
    if where is not None:
        gap = gap.masked_fill(~where[..., None], 0.0)
    row, rest = divmod(int(gap.argmax()), gap[0].numel())
    position, channel = divmod(rest, gap.shape[2])
    return Difference(relative=float(gap.max()), row=row, position=position, channel=channel)


def rms_difference(a: Tensor, b: Tensor) -> float:
    """The RMS of a - b as a share of a's spread over time: what is typical, not what is largest."""
    a, b = a.double(), b.double()
    spread = (a - a.flatten(0, 1).mean(dim=0)).square().mean().sqrt()
    return float((a - b).square().mean().sqrt() / spread.clamp(min=_SMALLEST_SCALE))


def draw(generator: torch.Generator, n_rows: int, length: int, d_model: int) -> Tensor:
    """Fresh input of the scale a normalised residual stream has: [n_rows, length, d_model]."""
    return torch.randn(n_rows, length, d_model, generator=generator)


def ragged_length(seq_len: int) -> int:
    """An odd length, at most 97, below the training length: no chunk size divides it."""
    return min(97, (seq_len - 2) | 1)


def _channel_scales(y: Tensor) -> Tensor:
    """Each channel's spread [D]: the RMS over rows at a typical position around its median.

    Neither a large constant, nor a few large positions, nor a large channel raise it, so none of
    them hides a leak elsewhere.
    """
    centred = y - y.flatten(0, 1).median(dim=0).values
    per_position = centred.square().mean(dim=0).sqrt()  # [T, D]
    own = _typical(per_position)
    # Channels of one position, or silent at most, have no typical value of their own.
    common = float(own.median()) or float(_typical(per_position.flatten()[:, None]))
    return own.clamp(min=max(_QUIET_CHANNEL * common, _SMALLEST_SCALE))


def _typical(values: Tensor) -> Tensor:
    """The median along the first axis of [N, D], of what is not zero in each column: [D]."""
    heard = values.masked_fill(values == 0, torch.nan)
    return heard.nanmedian(dim=0).values.nan_to_num(0.0)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
