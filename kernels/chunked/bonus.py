"""Torch form of `add_bonus`: torch's own operations and gradients."""

from __future__ import annotations

import torch
from torch import Tensor


def with_own_reading(
    o: Tensor,  # [B, T, H, V]; o, v, q and k of one dtype, the bonus' too
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,
    bonus: Tensor,  # [H, K]
    scale: float,
) -> Tensor:
    return torch.addcmul(o, (q * (scale * bonus) * k).sum(-1, keepdim=True), v)
