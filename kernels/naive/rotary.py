"""Specification of `rotary`: each pair of channels, half a head apart, turned by its angle."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_loop(
    x: Tensor,  # [B, T, H, K]
    angle: Tensor,  # [T, K / 2]
) -> Tensor:
    outputs = []
    for t in range(x.shape[1]):
        first, second = x[:, t].chunk(2, dim=-1)
        cos, sin = angle[t].cos(), angle[t].sin()
        outputs.append(torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1))
    return torch.stack(outputs, dim=1)
