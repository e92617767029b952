"""Asking a probe for an answer of the right form, and measuring how far two answers differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .probe import MixerProbe, ProbeFailed

# Two calls of one shape run the same arithmetic in the same order, so rows or tokens that do not
# depend on what was changed come out equal to the bit, or (a long convolution through an FFT, a
# shared maximum) within a few float32 roundings of 1e-7. A tenth of the setting is far above that
# and far below any leak worth having.
SAME_SHAPE = 0.1
# Another batch size or length makes BLAS and the chunked forms add up in another order: at most
# 1e-5 of the output over the library and hundreds of grammar genomes.
OTHER_SHAPE = 1.0
# Pieces run other forms altogether: a one-token step against a chunk whose decays were split into
# two exponentials (2e-5 seen). A state rounded to half precision (5e-4 and more) is still caught.
OTHER_FORM = 3.0

# Below this an output counts as constant, and any difference as a full one.
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The largest difference between two answers, as a share of the answer's own spread."""

    relative: float
    row: int
    position: int

    def evidence(self) -> dict[str, Any]:
        return {"relative": self.relative, "row": self.row, "position": self.position}


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


def largest_difference(a: Tensor, b: Tensor, where: Tensor | None = None) -> Difference:
    """Where a and b [B, T, D] differ most, among the positions in the mask `where` [B, T]."""
    a, b = a.double(), b.double()
    gap = (a - b).abs().amax(dim=-1)  # [B, T]
    if where is not None:
        gap = gap.masked_fill(~where, 0.0)
    row, position = divmod(int(gap.argmax()), gap.shape[1])
    return Difference(relative=float(gap.max()) / _spread(a), row=row, position=position)


def draw(generator: torch.Generator, n_rows: int, length: int, d_model: int) -> Tensor:
    """Fresh input of the scale a normalised residual stream has: [n_rows, length, d_model]."""
    return torch.randn(n_rows, length, d_model, generator=generator)


def ragged_length(seq_len: int) -> int:
    """An odd length, at most 97, below the training length: no chunk size divides it."""
    return min(97, (seq_len - 2) | 1)


def _spread(y: Tensor) -> float:
    """The RMS of a typical position around the channels' medians.

    Neither a large constant nor a few large positions raise it, so neither hides a leak elsewhere.
    """
    centred = y - y.flatten(0, 1).median(dim=0).values
    per_position = centred.square().mean(dim=(0, 2)).sqrt()  # [T]
    return max(float(per_position.median()), _SMALLEST_SCALE)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
