"""Chunked torch form of `chunk_decay`: matrix products inside chunks, one state between them.

For each chunk, in the words of `gates`, with columns' gates c and rows' gates r:
    o = c.entering(r.entering(q) S_n) + c.reading(r.scores(q, k), v)
    S_{n+1} = r.total c.total S_n + r.leaving(k)^T c.leaving(v)
(the chunkwise form of arXiv 2312.06635). The gradients are written out, because autograd
through the same steps takes 1.5 times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import without_autocast
from .gates import gates_for
from .layout import ChunkLayout
from .states import StateDecay, carry_states, pull_states


def decay_chunks(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # [B, T, H, V]
    bonus: Tensor | None,  # [H, K]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    if log_decay is not None and log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    if value_log_decay is not None and log_decay is not None and log_decay.shape[-1] == 1:
        value_log_decay, log_decay = value_log_decay + log_decay, None
    decays = log_decay, value_log_decay
    if bonus is None:
        o, final = _Decay.apply(q, k, v, *decays, initial_state, scale)
        return o, final
    # Token t reads S_{t-1}: what an ordinary read one token earlier would see.
    next_q = torch.cat((q[:, 1:], torch.zeros_like(q[:, :1])), dim=1)
    o, final = _Decay.apply(next_q, k, v, *decays, initial_state, scale)
    if initial_state is None:
        first = torch.zeros_like(v[:, :1])
    else:
        first = scale * torch.matmul(q[:, 0, :, None], initial_state).transpose(1, 2)
    own_write = (q * (scale * bonus) * k).sum(-1, keepdim=True) * v
    return torch.cat((first, o[:, :-1]), dim=1) + own_write, final


class _Decay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor | None,  # [B, T, H, 1 or K]
        value_log_decay: Tensor | None,
        initial_state: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layout = ChunkLayout.of(q)
        rows = gates_for(None if log_decay is None else layout.cut(log_decay))
        columns = gates_for(None if value_log_decay is None else layout.cut(value_log_decay))
        decay = StateDecay(layout.chunks, rows, columns)
        q, k, v = layout.cut(q, scale), layout.cut(k), layout.cut(v)
        kept_k, kept_v = rows.leaving(k), columns.leaving(v)
        writes = layout.by_chunk(torch.bmm(kept_k.mT, kept_v))
        states = carry_states(writes, decay.total(), layout.cut_state(initial_state))
        scores, asked = rows.scores(q, k), rows.entering(q)
        carried = torch.bmm(asked, states[:-1].flatten(0, 1))
        o = columns.add_reading(columns.entering(carried), scores, v)
        ctx.save_for_backward(q, k, v, kept_k, kept_v, scores, asked, carried, states)
        ctx.layout, ctx.decay, ctx.scale = layout, decay, scale
        return layout.join(o), layout.join_state(states[-1])

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(
        ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, kept_k, kept_v, scores, asked, carried, states = ctx.saved_tensors
        layout, rows, columns = ctx.layout, ctx.decay.rows, ctx.decay.columns
        rows.start_pulling()
        columns.start_pulling()
        grad_o = torch.zeros_like(v) if grad_o is None else layout.cut(grad_o)
        grad_scores, grad_v = columns.pull_reading(grad_o, scores, v)
        grad_carried = columns.pull_entering(grad_o, carried)
        grad_read = layout.by_chunk(torch.bmm(asked.mT, grad_carried))
        grads = pull_states(grad_read, ctx.decay.total(), layout.cut_state(grad_final))
        grad_writes = grads[1:].flatten(0, 1)
        grad_q = rows.pull_entering(torch.bmm(grad_carried, states[:-1].flatten(0, 1).mT), q)
        grad_k = rows.pull_leaving(torch.bmm(kept_v, grad_writes.mT), k)
        grad_v.add_(columns.pull_leaving(torch.bmm(kept_k, grad_writes), v))
        rows.pull_scores(grad_scores, scores, q, k, grad_q, grad_k)
        ctx.decay.pull_total(states, grads)
        grad_gates = rows.grad_log_decay(), columns.grad_log_decay()
        grad_start = layout.join_state(grads[0]) if ctx.needs_input_grad[5] else None
        return (
            layout.join(grad_q, ctx.scale),
            layout.join(grad_k),
            layout.join(grad_v),
            *(None if grad is None else layout.join(grad) for grad in grad_gates),
            grad_start,
            None,
        )
