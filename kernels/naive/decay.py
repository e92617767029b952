"""Specification of `chunk_decay`, one token at a time.

S_t = diag(exp(g_t)) S_{t-1} diag(exp(h_t)) + k_t v_t^T
o_t = S_t^T q_t, or with a bonus u: o_t = (S_{t-1} + diag(u) k_t v_t^T)^T q_t
"""

from __future__ import annotations

import torch
from torch import Tensor


def decay_loop(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # g: [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # h: [B, T, H, V]
    bonus: Tensor | None,  # u: [H, K]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    q = q * scale
    state = starting_state(k, v, initial_state)
    outputs = []
    for t in range(q.shape[1]):
        write = k[:, t, :, :, None] * v[:, t, :, None, :]  # [B, H, K, V]
        before = state
        state = decayed(state, log_decay, t)
        if value_log_decay is not None:
            state = state * value_log_decay[:, t, :, None, :].exp()
        state = state + write
        read = state if bonus is None else before + bonus[:, :, None] * write
        outputs.append((q[:, t, :, :, None] * read).sum(-2))
    return torch.stack(outputs, dim=1), state


def decayed(state: Tensor, log_decay: Tensor | None, t: int) -> Tensor:
    """The state's rows times token t's decay: one factor a head, or one a key channel."""
    if log_decay is None:
        return state
    decay = log_decay[:, t].exp()  # [B, H] or [B, H, K]
    return state * (decay[:, :, None, None] if decay.dim() == 2 else decay[:, :, :, None])


def starting_state(k: Tensor, v: Tensor, initial_state: Tensor | None) -> Tensor:
    """[B, H, K, V]: the given state, else zeros."""
    if initial_state is not None:
        return initial_state
    batch, _, heads, key_dim = k.shape
    return k.new_zeros(batch, heads, key_dim, v.shape[-1])
