"""Specification of `chunk_dplr`, one token at a time.

c_t = S_{t-1}^T a_t
S_t = diag(exp(g_t)) S_{t-1} + b_t c_t^T + k_t v_t^T,    o_t = S_t^T q_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decay import decayed, starting_state


def dplr_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    a: Tensor,  # [B, T, H, K]
    b: Tensor,
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    q = q * scale
    state = starting_state(k, v, initial_state)
    outputs = []
    for t in range(q.shape[1]):
        held = (a[:, t, :, :, None] * state).sum(-2)  # c [B, H, V]
        state = decayed(state, log_decay, t)
        state = state + b[:, t, :, :, None] * held[:, :, None, :]
        state = state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * state).sum(-2))
    return torch.stack(outputs, dim=1), state
