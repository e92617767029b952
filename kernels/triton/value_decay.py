"""chunk_decay's Triton form for decays of the value channels: a gradient of its form for keys'.

With w the decays, sum_{s <= t} (do_t . w_ts v_s)(q_t . k_s) is what a decay of key channels has,
with do as the query, v as the key, k as the value and q as its output's gradient. So the output
here is the gradient of that query, and the gradient of q is that output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import decay
from .operators import operator


def value_decay_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    value_log_decay: Tensor,  # [B, T, H, V]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,  # not 0
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    o, final = _forward_op(q, k, v, value_log_decay, initial_state, scale)
    return o, final


@operator("value_decay_forward")
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_log_decay: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    start = _transposed(initial_state)
    _, final, *kept = decay._forward_op(v, v, k, value_log_decay, start, scale, True)
    o, *_ = decay._backward_op(
        v, v, k, value_log_decay, start, kept, q, None, scale, False, False
    )  # fmt: skip
    return o, final.mT.contiguous()


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_log_decay: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), v.new_empty(decay._state_shape(q, v), dtype=torch.float32)


@operator("value_decay_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_log_decay: Tensor,
    initial_state: Tensor | None,
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first five arguments; the last two empty if not asked for."""
    start, grad_o = _transposed(initial_state), grad_o.to(v.dtype)
    dq, _, *kept = decay._forward_op(grad_o, v, k, value_log_decay, start, scale, True)
    _, dv, dk, dg, dstart = decay._backward_op(
        grad_o, v, k, value_log_decay, start, kept, q, _transposed(grad_final),
        scale, gate_grad, start_grad,
    )  # fmt: skip
    return dq, dk, dv, dg, dstart.mT.contiguous() if start_grad else dstart


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    value_log_decay: Tensor,
    initial_state: Tensor | None,
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        q.new_empty(value_log_decay.shape if gate_grad else (0,), dtype=torch.float32),
        q.new_empty(decay._state_shape(q, v) if start_grad else (0,), dtype=torch.float32),
    )


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _pull(ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
    _, _, v, value_log_decay, _ = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    _, _, _, gate_grad, start_grad, _ = ctx.needs_input_grad
    dq, dk, dv, dg, dstart = _backward_op(
        *ctx.saved_tensors, grad_o, grad_final, ctx.scale, gate_grad, start_grad
    )
    of_gates = dg.to(value_log_decay.dtype) if gate_grad else None
    return dq, dk, dv, of_gates, dstart if start_grad else None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _transposed(state: Tensor | None) -> Tensor | None:
    return None if state is None else state.mT.contiguous()
