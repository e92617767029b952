"""Specification of `short_convolution`: y_t = act(b + sum_i w_i x_{t - W + 1 + i}), y / |y|."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def convolution_loop(
    x: Tensor,  # [B, W - 1 + T, D], the earlier tokens first
    weight: Tensor,  # [D, W]
    bias: Tensor | None,  # [D]
    activation: str | None,
) -> Tensor:
    width = weight.shape[1]
    outputs = []
    for t in range(x.shape[1] - width + 1):
        y = (x[:, t : t + width] * weight.T).sum(1)
        if bias is not None:
            y = y + bias
        outputs.append(F.silu(y) if activation == "silu" else y)
    return torch.stack(outputs, dim=1)


def unit_heads_formula(
    y: Tensor,  # [B, T, D]
    n_channels: int,  # of which heads are made
    head_dim: int,
    eps: float,
) -> Tensor:
    heads = y[..., :n_channels].unflatten(-1, (-1, head_dim))
    heads = heads / torch.sqrt((heads * heads).sum(-1, keepdim=True) + eps)
    return torch.cat((heads.flatten(-2), y[..., n_channels:]), dim=-1)
