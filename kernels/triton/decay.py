"""chunk_decay's Triton form as torch operators, and autograd between them.

The forward pass is one sweep. The backward pass of narrow heads is one more kernel
(whole_pull.py). For wider ones, where nothing decays, it is three more sweeps; else a sweep for dv,
which keeps the state's gradients, and a pull for all others (sweep.py, pull.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .launches import (
    CHANNEL,
    HEAD,
    NONE,
    Ends,
    Gates,
    chunks_of,
    fill_gates,
    fits_a_program,
    kind_of,
    pull,
    room_for_gates,
    sweep,
    whole_pull,
)
from .operators import operator
from .strides import rows_adjacent


def decay_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,  # not 0
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    inputs = (q, k, v, log_decay, initial_state)
    wanted = any(x is not None and x.requires_grad for x in inputs)
    pulls = log_decay is not None or fits_a_program(q, v, NONE)
    keep = pulls and torch.is_grad_enabled() and wanted
    o, final, *_ = _forward_op(*inputs, scale, keep)
    return o, final


@operator("decay_forward", outputs=9)
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> list[Tensor]:
    """o, the final state, and for the backward pass: saved states and what the gates became."""
    q, k, v = (rows_adjacent(x) for x in (q, k, v))
    final, saved, gates = _forward_room(q, v, log_decay, keep)
    fill_gates(gates, q, k, keep)
    start = None if initial_state is None else initial_state.contiguous()
    o = sweep(
        q, k, v, gates=gates, factored=_factored(gates), scale=scale,
        ends=Ends(start=start, final=final, mn=True), saved=saved if keep else None,
    )  # fmt: skip
    return [o, final, saved, *gates.tensors()]


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> list[Tensor]:
    final, saved, gates = _forward_room(q, v, log_decay, keep)
    return [v.new_empty(v.shape), final, saved, *gates.tensors()]


@operator("decay_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    """Gradients of q, k, v, log_decay and the initial state; the last two empty if not asked."""
    q, k, v, do = (rows_adjacent(x) for x in (q, k, v, grad_o.to(v.dtype)))
    saved, *of_gates = kept
    decay = q if log_decay is None else log_decay.contiguous()
    gates = Gates(kind_of(log_decay), decay, *of_gates)
    dfinal = None if grad_final is None else grad_final.float().contiguous()
    dstart = q.new_empty(_state_shape(q, v) if start_grad else (0,), dtype=torch.float32)
    after = Ends(
        start=dfinal, start_scale=1 / scale, mn=True,
        final=dstart if start_grad else None, final_scale=scale,
    )  # fmt: skip
    if fits_a_program(q, v, gates.kind):
        dq, dk, dv, dg = whole_pull(
            q, k, v, do, gates=gates, saved=saved, scale=scale, ends=after,
            gate_grad=gate_grad and gates.kind == HEAD,
        )  # fmt: skip
        return [dq, dk, dv, dg, dstart]
    dsaved = torch.empty_like(saved)
    dv = sweep(
        k, q, do, gates=gates, factored=_factored(gates, reverse=True), scale=scale, ends=after,
        reverse=True, saved=None if gates.kind == NONE else dsaved,
    )  # fmt: skip
    if gates.kind == NONE:
        start = None if initial_state is None else initial_state.contiguous()
        dq = sweep(do, v, k, gates=gates, scale=scale, ends=Ends(start=start))
        ends = Ends(start=dfinal, start_scale=1 / scale)
        dk = sweep(v, do, q, gates=gates, scale=scale, ends=ends, reverse=True)
        return [dq, dk, dv, q.new_empty(0, dtype=torch.float32), dstart]
    dq, dk, dg = pull(
        q, k, v, do, gates=gates, saved=saved, dsaved=dsaved, scale=scale, gate_grad=gate_grad
    )
    return [dq, dk, dv, dg, dstart]


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    of_gates = (0,) if log_decay is None or not gate_grad else log_decay.shape
    return [
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        q.new_empty(of_gates, dtype=torch.float32),
        q.new_empty(_state_shape(q, v) if start_grad else (0,), dtype=torch.float32),
    ]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, log_decay, initial_state, ctx.scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(q, k, v, log_decay, initial_state, *output[2:])


def _pull(
    ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, initial_state, *kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    _, _, _, gate_grad, start_grad, *_ = ctx.needs_input_grad
    dq, dk, dv, dg, dstart = _backward_op(
        q, k, v, log_decay, initial_state, kept, grad_o, grad_final,
        ctx.scale, gate_grad, start_grad,
    )  # fmt: skip
    of_gates = dg.to(log_decay.dtype) if gate_grad else None
    return dq, dk, dv, of_gates, dstart if start_grad else None, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _forward_room(
    q: Tensor, v: Tensor, log_decay: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Gates]:
    (B, T, H, K), V = q.shape, v.shape[-1]
    final = q.new_empty(_state_shape(q, v), dtype=torch.float32)
    saved = v.new_empty((B, H, chunks_of(T), V, K) if keep else (0,))
    return final, saved, room_for_gates(q, v, log_decay, keep)


def _factored(gates: Gates, *, reverse: bool = False) -> tuple[Tensor, Tensor] | None:
    """Readers and writers; reversed, where the writers' gradients are read."""
    if gates.kind != CHANNEL:
        return None
    return (gates.given, gates.asked) if reverse else (gates.asked, gates.given)


def _state_shape(q: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    return q.shape[0], q.shape[2], q.shape[3], v.shape[3]
