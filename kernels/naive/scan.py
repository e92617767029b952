"""Specification of `scan`: h_t = exp(g_t) h_{t-1} + x_t, one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def scan_loop(
    x: Tensor,  # [B, T, D]
    log_decay: Tensor,  # [B, T, D]
    initial_state: Tensor | None,  # [B, D]
) -> tuple[Tensor, Tensor]:
    state = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state
    outputs = []
    for t in range(x.shape[1]):
        state = log_decay[:, t].exp() * state + x[:, t]
        outputs.append(state)
    return torch.stack(outputs, dim=1), state
