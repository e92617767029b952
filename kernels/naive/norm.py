"""Specification of `rms_norm` and `l2_norm`: x / sqrt(mean(x^2) + eps) * weight * act(gate) and
x / sqrt(|x|^2 + eps), as written.
"""

from __future__ import annotations

import torch
from torch import Tensor


def norm_formula(
    x: Tensor,  # [..., D]
    weight: Tensor,  # [D]
    gate: Tensor | None,  # [..., D]
    activation: str,
    eps: float,
) -> Tensor:
    y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight
    if gate is None:
        return y
    return y * gate.sigmoid() * (gate if activation == "silu" else 1.0)


def l2_formula(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + eps)
