"""Specification of `add_bonus`: o + scale (q . u k) v, as written."""

from __future__ import annotations

from torch import Tensor


def bonus_formula(
    o: Tensor, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor, scale: float
) -> Tensor:
    return o + scale * (q * bonus * k).sum(-1, keepdim=True) * v
