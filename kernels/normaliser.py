"""chunk_decay's normaliser: a column of ones beside the values, and the division by what it reads.

Not an operation of its own: a state with the sum of keys as one more column is all it needs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .forms import Form

SMALLEST_NORMALISER = 1e-6
_FUSED_MULTIPLE = 16  # columns; in rows of other lengths kernels read every number by itself


def normalised_width(value_dim: int, form: Form) -> int:
    """Columns of values with their normaliser; in Triton's form some more, which are zeros."""
    width = value_dim + 1
    return width + -width % _FUSED_MULTIPLE if form == "triton" else width


def with_normaliser(v: Tensor, width: int) -> Tensor:
    """v [..., V], ones, and zeros up to `width` columns."""
    others = F.pad(v.new_ones(1), (0, width - v.shape[-1] - 1))
    return torch.cat((v, others.expand(*v.shape[:-1], -1)), dim=-1)


def divided(o: Tensor, value_dim: int, form: Form) -> Tensor:
    """The first V columns of o over the next, which counts as 1e-6 where it is nearer to 0."""
    if form == "triton":
        from .triton.normaliser import divided_fused  # not on every CPU machine

        return divided_fused(o, value_dim)
    return o[..., :value_dim] / _away_from_zero(o[..., value_dim : value_dim + 1])


def _away_from_zero(x: Tensor) -> Tensor:
    smallest = torch.copysign(torch.full_like(x, SMALLEST_NORMALISER), x)
    return torch.where(x.abs() < SMALLEST_NORMALISER, smallest, x)
