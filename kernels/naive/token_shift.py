"""Specification of `token_shift`: y_i,t = x_t + (x_{t-1} - x_t) s_i,t."""

from __future__ import annotations

import torch
from torch import Tensor


def token_shift_loop(
    x: Tensor,  # [B, T, D]
    shares: Tensor,  # [n, B, T, D], or ones in the places of B and T
    before: Tensor,  # [B, 1, D], the token before x
) -> Tensor:
    """[n, B, T, D]."""
    shares = shares.expand(-1, *x.shape)
    outputs = []
    for t in range(x.shape[1]):
        now = x[:, t : t + 1]
        outputs.append(now + (before - now) * shares[:, :, t : t + 1])
        before = now
    return torch.cat(outputs, dim=2)
