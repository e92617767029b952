"""Specification of `scaled_heads`: s_t,h x_t,g, as written."""

from __future__ import annotations

from torch import Tensor


def strength_formula(
    x: Tensor,  # [B, T, H, K]
    strength: Tensor,  # [B, T, HV]
) -> Tensor:
    repeated = x.repeat_interleave(strength.shape[2] // x.shape[2], dim=2)
    return repeated * strength.unsqueeze(-1)
