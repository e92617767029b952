"""Chunked torch form of `chunk_dplr`: c is found as the delta rule's corrections are.

Token t reads S_{t-1}, before the decay: what a query of token t - 1 would read. So scores are taken
of the next token's a, and moved a token later. In the words of `gates`, for each chunk:
    c = later(scores(next_a, b)) c + later(scores(next_a, k)) v + later(entering(next_a)) S_n
    o = scores(q, b) c + scores(q, k) v + entering(q) S_n
    S_{n+1} = total S_n + leaving(b)^T c + leaving(k)^T v
where a chunk's first token reads S_n itself. The gradients are written out, as elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import without_autocast
from .corrections import correct, pull
from .gates import NoGates, gates_for
from .layout import ChunkLayout
from .states import StateDecay


def dplr_chunks(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    a: Tensor,  # [B, T, H, K]
    b: Tensor,
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    if log_decay is not None and log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    o, final = _Dplr.apply(q, k, v, a, b, log_decay, initial_state, scale)
    return o, final


class _Dplr(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        a: Tensor,
        b: Tensor,
        log_decay: Tensor | None,  # [B, T, H, 1 or K]
        initial_state: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layout = ChunkLayout.of(q)
        gates = gates_for(None if log_decay is None else layout.cut(log_decay))
        decay = StateDecay(layout.chunks, gates, NoGates())
        q, k, v = layout.cut(q, scale), layout.cut(k), layout.cut(v)
        # Corrections are what is missing: c = values - erase S with erase = -a.
        a, b = layout.cut(a, -1.0), layout.cut(b)
        next_a = _earlier(a)
        of_values = gates.scores(next_a, k)
        asked, given = gates.entering(q), gates.leaving(k)
        found = correct(
            _later(gates.scores(next_a, b)),
            None,
            _later(gates.entering(next_a), first=a),
            _later(torch.bmm(of_values, v)).neg_(),
            gates.leaving(b),
            decay,
            layout.cut_state(initial_state),
            writes=layout.by_chunk(torch.bmm(given.mT, v)),
        )
        scores_b, scores_k = gates.scores(q, b), gates.scores(q, k)
        o = torch.bmm(asked, found.states[:-1].flatten(0, 1))
        o.baddbmm_(scores_b, found.written).baddbmm_(scores_k, v)
        ctx.save_for_backward(q, k, v, next_a, b, of_values, scores_b, scores_k, asked, given)
        ctx.layout, ctx.decay, ctx.found, ctx.scale = layout, decay, found, scale
        return layout.join(o), layout.join_state(found.states[-1])

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(
        ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, next_a, b, of_values, scores_b, scores_k, asked, given = ctx.saved_tensors
        layout, gates, found = ctx.layout, ctx.decay.rows, ctx.found
        gates.start_pulling()
        grad_o = torch.zeros_like(v) if grad_o is None else layout.cut(grad_o)
        grad_read = layout.by_chunk(torch.bmm(asked.mT, grad_o))
        grads = pull(found, torch.bmm(scores_b.mT, grad_o), grad_read, layout.cut_state(grad_final))
        before, after = found.states[:-1].flatten(0, 1), grads.states[1:].flatten(0, 1)
        of_next_values = _earlier(grads.values).neg_()
        grad_v = torch.bmm(scores_k.mT, grad_o)
        grad_v.baddbmm_(of_values.mT, of_next_values).baddbmm_(given, after)
        grad_q = gates.pull_entering(torch.bmm(grad_o, before.mT), q)
        grad_k = gates.pull_leaving(torch.bmm(v, after.mT), k)
        grad_b = gates.pull_leaving(grads.keys, b)
        grad_next_a = gates.pull_entering(_earlier(grads.erase), next_a)
        for grad, scores, reader, writer, of_reader, of_writer in (
            (torch.bmm(grad_o, found.written.mT), scores_b, q, b, grad_q, grad_b),
            (torch.bmm(grad_o, v.mT), scores_k, q, k, grad_q, grad_k),
            (_earlier(grads.scores), _earlier(found.scores), next_a, b, grad_next_a, grad_b),
            (torch.bmm(of_next_values, v.mT), of_values, next_a, k, grad_next_a, grad_k),
        ):
            gates.pull_scores(grad, scores, reader, writer, of_reader, of_writer)
        ctx.decay.pull_total(found.states, grads.states)
        grad_gates = gates.grad_log_decay()
        return (
            layout.join(grad_q, ctx.scale),
            layout.join(grad_k),
            layout.join(grad_v),
            layout.join(_later(grad_next_a, first=grads.erase), -1.0),
            layout.join(grad_b),
            None if grad_gates is None else layout.join(grad_gates),
            layout.join_state(grads.states[0]) if ctx.needs_input_grad[6] else None,
            None,
        )


def _earlier(x: Tensor) -> Tensor:
    """[M, C, D] with each row where the one before it was, zeros in the last."""
    return F.pad(x[:, 1:], (0, 0, 0, 1))


def _later(x: Tensor, *, first: Tensor | None = None) -> Tensor:
    """[M, C, D] with each row where the one after it was, the first of `first` or zeros."""
    moved = F.pad(x[:, :-1], (0, 0, 1, 0))
    if first is not None:
        moved[:, 0] = first[:, 0]
    return moved
