"""Chunked torch form of `chunk_delta` and `chunk_oja`: corrections, then a read as in `decay`.

The gradients are written out, because autograd through the same steps takes 1.5 times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import without_autocast
from ..steps import at_first_step, at_last_step
from .corrections import correct, pull
from .gates import NoGates, gates_for
from .layout import ChunkLayout
from .states import StateDecay


def delta_chunks(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,  # [B, nT, H, K]: n steps a token
    v: Tensor,  # [B, nT, H, V]
    beta: Tensor,  # [B, nT, H]
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # [B, T, H, V]
    erase_key: Tensor | None,  # [B, nT, H, K]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    steps = k.shape[1] // q.shape[1]
    q = at_last_step(q, steps)
    decays = _gate_rows(log_decay, steps), _gate_rows(value_log_decay, steps)
    beta = beta.unsqueeze(-1)
    o, final = _Delta.apply(q, k, v, beta, *decays, erase_key, initial_state, scale, steps)
    return o[:, steps - 1 :: steps], final


def oja_chunks(
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    beta: Tensor,  # [B, T, H]
    log_decay: Tensor | None,  # [B, T, H] or, on the value side, [B, T, H, V]
    initial_state: Tensor | None,  # [B, H, K, V]
    scale: float,
) -> tuple[Tensor, Tensor]:
    gates = _gate_rows(log_decay, 1)
    o, final = _Oja.apply(q, k, v, beta.unsqueeze(-1), gates, initial_state, scale)
    return o, final


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,  # [B, T, H, 1]
        log_decay: Tensor | None,  # [B, T, H, 1 or K]
        value_log_decay: Tensor | None,  # [B, T, H, V]
        erase_key: Tensor | None,
        initial_state: Tensor | None,
        scale: float,
        steps: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layout = ChunkLayout.of(q, steps)
        rows, columns = (
            gates_for(None if decays is None else layout.cut(decays), steps)
            for decays in (log_decay, value_log_decay)
        )
        decay = StateDecay(layout.chunks, rows, columns)
        q, k, v = layout.cut(q, scale), layout.cut(k), layout.cut(v)
        p = k if erase_key is None else layout.cut(erase_key)
        found = correct(
            rows.scores(p, k),
            layout.cut(beta),
            rows.entering(p),
            v,
            rows.leaving(k),
            decay,
            layout.cut_state(initial_state),
        )
        scores, asked = rows.scores(q, k), rows.entering(q)
        carried = torch.bmm(asked, found.states[:-1].flatten(0, 1))
        o = columns.add_reading(columns.entering(carried), scores, found.written)
        # Without a decay of columns o is in its place.
        kept = None if columns.total is None else carried
        ctx.save_for_backward(q, k, p, scores, asked, kept)
        ctx.layout, ctx.found = layout, found
        ctx.scale, ctx.erases_own_key = scale, erase_key is None
        return layout.join(o), layout.join_state(found.states[-1])

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(
        ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, p, scores, asked, carried = ctx.saved_tensors
        layout, found = ctx.layout, ctx.found
        rows, columns = found.decay.rows, found.decay.columns
        rows.start_pulling()
        columns.start_pulling()
        grad_o = torch.zeros_like(found.written) if grad_o is None else layout.cut(grad_o)
        grad_scores, grad_u = columns.pull_reading(grad_o, scores, found.written)
        grad_carried = columns.pull_entering(grad_o, carried)
        grad_read = layout.by_chunk(torch.bmm(asked.mT, grad_carried))
        grads = pull(found, grad_u, grad_read, layout.cut_state(grad_final))
        before = found.states[:-1].flatten(0, 1)
        grad_q = rows.pull_entering(torch.bmm(grad_carried, before.mT), q)
        grad_k = rows.pull_leaving(grads.keys, k)
        grad_p = rows.pull_entering(grads.erase, p)
        if ctx.erases_own_key:
            grad_p = grad_k.add_(grad_p)
        rows.pull_scores(grad_scores, scores, q, k, grad_q, grad_k)
        rows.pull_scores(grads.scores, found.scores, p, k, grad_p, grad_k)
        found.decay.pull_total(found.states, grads.states)
        grad_gates = rows.grad_log_decay(), columns.grad_log_decay()
        return (
            layout.join(grad_q, ctx.scale),
            layout.join(grad_k),
            layout.join(grads.values),
            layout.join(grads.strength),
            *(None if grad is None else layout.join(grad) for grad in grad_gates),
            None if ctx.erases_own_key else layout.join(grad_p),
            layout.join_state(grads.states[0]) if ctx.needs_input_grad[7] else None,
            None,
            None,
        )


class _Oja(torch.autograd.Function):
    """The delta rule on the transposed state (key v, value k), read through its other side."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        beta: Tensor,  # [B, T, H, 1]
        log_decay: Tensor | None,  # [B, T, H, 1 or V]
        initial_state: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        layout = ChunkLayout.of(q)
        gates = gates_for(None if log_decay is None else layout.cut(log_decay))
        decay = StateDecay(layout.chunks, gates, NoGates())
        q, k, v = layout.cut(q, scale), layout.cut(k), layout.cut(v)
        start = None if initial_state is None else initial_state.mT
        found = correct(
            gates.scores(v, v),
            layout.cut(beta),
            gates.entering(v),
            k,
            gates.leaving(v),
            decay,
            layout.cut_state(start),
        )
        scores = torch.bmm(q, found.written.mT).tril_()
        carried = torch.bmm(q, found.states[:-1].flatten(0, 1).mT)  # [M, C, V]
        o = gates.add_reading(gates.entering(carried), scores, v)
        ctx.save_for_backward(q, v, scores, carried)
        ctx.layout, ctx.decay, ctx.found, ctx.scale = layout, decay, found, scale
        return layout.join(o), layout.join_state(found.states[-1].mT)

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(
        ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, v, scores, carried = ctx.saved_tensors
        layout, gates, found = ctx.layout, ctx.decay.rows, ctx.found
        gates.start_pulling()
        grad_o = torch.zeros_like(v) if grad_o is None else layout.cut(grad_o)
        grad_final = None if grad_final is None else grad_final.mT
        grad_scores, grad_v = gates.pull_reading(grad_o, scores, v)
        grad_scores.tril_()
        grad_carried = gates.pull_entering(grad_o, carried)
        grad_read = layout.by_chunk(torch.bmm(grad_carried.mT, q))
        grads = pull(found, torch.bmm(grad_scores.mT, q), grad_read, layout.cut_state(grad_final))
        grad_q = torch.bmm(grad_scores, found.written)
        grad_q.baddbmm_(grad_carried, found.states[:-1].flatten(0, 1))
        grad_v += gates.pull_leaving(grads.keys, v)
        grad_v += gates.pull_entering(grads.erase, v)
        gates.pull_scores(grads.scores, found.scores, v, v, grad_v, grad_v)
        ctx.decay.pull_total(found.states, grads.states)
        grad_gates = gates.grad_log_decay()
        return (
            layout.join(grad_q, ctx.scale),
            layout.join(grads.values),
            layout.join(grad_v),
            layout.join(grads.strength),
            None if grad_gates is None else layout.join(grad_gates),
            layout.join_state(grads.states[0].mT) if ctx.needs_input_grad[5] else None,
            None,
        )


def _gate_rows(log_decay: Tensor | None, steps: int) -> Tensor | None:
    """[B, nT, H, 1 or K]: a token's decay falls on its first step."""
    if log_decay is None:
        return None
    if log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    return at_first_step(log_decay, steps)
