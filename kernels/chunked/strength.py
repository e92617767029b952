"""Torch form of `scaled_heads`: torch's own operations and gradients; no head is repeated first."""

from __future__ import annotations

from torch import Tensor


def heads_times_strengths(
    x: Tensor,  # [B, T, H, K]
    strength: Tensor,  # [B, T, HV], x's dtype
) -> Tensor:
    groups = strength.unflatten(2, (x.shape[2], -1))  # [B, T, H, HV / H]
    y: Tensor = (x.unsqueeze(3) * groups.unsqueeze(-1)).flatten(2, 3)
    return y
