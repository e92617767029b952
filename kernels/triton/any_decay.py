"""chunk_decay's Triton form by what decays: keys' channels, values', or both; a bonus beside each.

A head's decay beside values' decays each column. Those of keys' and values' channels are the delta
rule's that erases nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bonus import bonus_fused
from .decay import decay_fused
from .delta import delta_fused
from .value_decay import value_decay_fused


def any_decay_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # [B, T, H, V]
    bonus: Tensor | None,  # [H, K]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,  # not 0
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    decays = log_decay, value_log_decay
    if bonus is None:
        return _without_bonus(q, k, v, *decays, initial_state, scale)
    # Token t reads S_{t-1}: what an ordinary read one token earlier would see.
    next_q = torch.cat((q[:, 1:], torch.zeros_like(q[:, :1])), dim=1)
    o, final = _without_bonus(next_q, k, v, *decays, initial_state, scale)
    if initial_state is None:
        first = torch.zeros_like(v[:, :1])
    else:
        first = scale * torch.matmul(q[:, 0, :, None].float(), initial_state).transpose(1, 2)
    read = torch.cat((first.to(v.dtype), o[:, :-1]), dim=1)
    return bonus_fused(read, q, k, v, bonus, scale), final


def _without_bonus(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    if value_log_decay is None:
        return decay_fused(q, k, v, log_decay, initial_state, scale)
    if log_decay is None:
        return value_decay_fused(q, k, v, value_log_decay, initial_state, scale)
    if log_decay.dim() == 3:
        decay = value_log_decay + log_decay.unsqueeze(-1)
        return value_decay_fused(q, k, v, decay, initial_state, scale)
    strength, erased = log_decay.new_ones(q.shape[:3]), torch.zeros_like(k)
    return delta_fused(q, k, v, strength, log_decay, value_log_decay, erased, initial_state, scale)
