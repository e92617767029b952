"""Specifications of `chunk_delta` and `chunk_oja`, one token and one step at a time.

delta: S = diag(exp(g_t)) S_{t-1} diag(exp(h_t)), then for each step of token t:
       S <- S + k (w v - S^T (b p))^T, with channels of strengths b, w times those of p, v
oja:   S_t = S_{t-1} diag(exp(g_t)) (I - b v v^T) + b k v^T
both:  o_t = S_t^T q_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decay import decayed, starting_state


def delta_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,  # [B, nT, H, K]: n steps a token
    v: Tensor,  # [B, nT, H, V]
    beta: Tensor,  # b: [B, nT, H] or [B, nT, H, K]
    write_strength: Tensor,  # w: [B, nT, H] or [B, nT, H, V]
    log_decay: Tensor | None,  # g: [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # h: [B, T, H, V]
    erase_key: Tensor | None,  # p: [B, nT, H, K]; None: k
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    q = q * scale
    state = starting_state(k, v, initial_state)
    steps = k.shape[1] // q.shape[1]
    erase_key = k if erase_key is None else erase_key
    beta = beta if beta.dim() == 4 else beta[..., None]
    write_strength = write_strength if write_strength.dim() == 4 else write_strength[..., None]
    outputs = []
    for t in range(q.shape[1]):
        state = decayed(state, log_decay, t)
        state = decayed(state.mT, value_log_decay, t).mT
        for i in range(t * steps, (t + 1) * steps):
            weighted_key = beta[:, i] * erase_key[:, i]  # [B, H, K]
            stored = (weighted_key[..., None] * state).sum(-2)  # [B, H, V]
            correction = write_strength[:, i] * v[:, i] - stored
            state = state + k[:, i, :, :, None] * correction[:, :, None, :]
        outputs.append((q[:, t, :, :, None] * state).sum(-2))
    return torch.stack(outputs, dim=1), state


def oja_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    beta: Tensor,  # [B, T, H]
    log_decay: Tensor | None,  # [B, T, H] or, on the value side, [B, T, H, V]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    q = q * scale
    state = starting_state(k, v, initial_state)
    outputs = []
    for t in range(q.shape[1]):
        state = decayed(state.mT, log_decay, t).mT
        predicted = (state * v[:, t, :, None, :]).sum(-1)  # [B, H, K]
        correction = beta[:, t, :, None] * (k[:, t] - predicted)
        state = state + correction[:, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * state).sum(-2))
    return torch.stack(outputs, dim=1), state
