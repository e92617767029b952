"""chunk_oja's Triton form: the delta rule on the transposed state, then a read of its other side.

    S_t = S_{t-1} diag(e^g_t) + u_t v_t^T,    u_t = b_t (k_t - S_{t-1} diag(e^g_t) v_t)
The delta rule with key v and value k has this state, transposed; what u_t lacks is its read at the
token before, of e^g_t v_t. Written by u, the state only decays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decay import decay_fused
from .delta import delta_fused
from .value_decay import value_decay_fused


def oja_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    beta: Tensor,  # [B, T, H] float32
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, V]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    asked = v if log_decay is None else (v * _by_channel(log_decay).exp()).to(v.dtype)
    next_asked = torch.cat((asked[:, 1:], torch.zeros_like(asked[:, :1])), dim=1)
    start = None if initial_state is None else initial_state.mT
    held, _ = delta_fused(next_asked, v, k, beta, log_decay, None, start, 1.0)
    if start is None:
        first = torch.zeros_like(k[:, :1])
    else:
        first = torch.matmul(asked[:, 0, :, None].float(), start).transpose(1, 2).to(k.dtype)
    missing = k - torch.cat((first, held[:, :-1]), dim=1)
    written = (missing * beta.unsqueeze(-1)).to(k.dtype)
    if log_decay is not None and log_decay.dim() == 4:
        return value_decay_fused(q, written, v, log_decay, initial_state, scale)
    return decay_fused(q, written, v, log_decay, None, initial_state, scale)


def _by_channel(log_decay: Tensor) -> Tensor:
    return log_decay.unsqueeze(-1) if log_decay.dim() == 3 else log_decay
