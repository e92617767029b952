"""chunk_dplr's Triton form: passes over a sequence as torch operators, autograd between them.

The kernels know a decay per channel alone: a head's is expanded, none is zeros. For the backward
pass each chunk keeps its system, scores, what was found under a, the state before it, and its keys
and queries with their decays in them.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import dplr_configs as configs
from .configs import block
from .delta_configs import chunk, operands
from .dplr_exact_pull import exact_pull_kernel
from .dplr_factor import factor_kernel
from .dplr_pull import pairs_kernel, readers_kernel, writers_kernel
from .dplr_solve import solve_kernel
from .dplr_sweep import backward_kernel, forward_kernel
from .operators import operator
from .strides import rows, rows_adjacent
from .strong_gates import CHUNKS_AT_ONCE


def dplr_fused(
    q: Tensor,  # [B, T, H, K]; q, k, v, a and b of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    a: Tensor,  # [B, T, H, K]
    b: Tensor,
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    if log_decay is None:
        log_decay = torch.zeros_like(q, dtype=torch.float32)
    elif log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1).expand_as(q)
    inputs = (q, k, v, a, b, log_decay, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final, *_ = _forward_op(*inputs, scale, keep)
    return o, final


@operator("dplr_forward", outputs=16)
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> list[Tensor]:
    """o, the final state; for the backward pass what `_room` names after them."""
    q, k, v, a, b = (rows_adjacent(x) for x in (q, k, v, a, b))
    room = _room(q, v, keep)
    o, final, sums, strong, ends, scores_k, scores_b, z, y, c, states, *factored, reading = room
    (B, T, H, K), V, C = q.shape, v.shape[-1], chunk(v.dtype)
    chunks, shared = triton.cdiv(T, C), _shared(v)
    inputs, strides = (q, k, a, b), (*rows(q), *rows(k), *rows(a), *rows(b))
    width = block(K, 64)
    factor_kernel[(B * H * chunks * triton.cdiv(K, width),)](
        *inputs, log_decay.contiguous(), sums, strong, ends, *factored, T, H, K, chunks, *strides,
        C=C, BK=width, EVEN_K=K % width == 0,
    )  # fmt: skip
    for exact in (False, True):
        config = configs.solve(K, V, v.dtype, exact=exact)
        at_once = CHUNKS_AT_ONCE if exact else 1
        solve_kernel[(B * H * triton.cdiv(chunks, at_once),)](
            *inputs, sums, strong, *factored, scores_k, scores_b, z, y, reading,
            T, H, K, chunks, *strides, BK=config.block_m, EVEN_K=K % config.block_m == 0,
            EXACT=exact, AT_ONCE=at_once, **config.compiled(), **shared,
        )  # fmt: skip
    asked, _, given_k, given_b = factored
    config = configs.forward(K, V, v.dtype)
    start = final if initial_state is None else initial_state.contiguous()
    forward_kernel[(B * H * triton.cdiv(V, config.block_n),)](
        asked, reading, given_k, given_b, v, ends, y, scores_k, scores_b, start,
        o, final, c, states,
        scale, T, H, K, V, chunks, *rows(v),
        BK=config.block_m, BV=config.block_n, HAS_START=initial_state is not None, SAVE=keep,
        EVEN_K=config.block_m == K, EVEN_V=V % config.block_n == 0, **config.compiled(), **shared,
    )  # fmt: skip
    return room


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> list[Tensor]:
    return _room(q, v, keep)


@operator("dplr_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    """Gradients of q, k, v, a, b, log_decay and the initial state, the last two perhaps empty."""
    sums, strong, ends, scores_k, scores_b, z, y, c, states, *factored, reading = kept
    asked, _, given_k, given_b = factored
    q, k, v, a, b, do = (rows_adjacent(x) for x in (q, k, v, a, b, grad_o.to(v.dtype)))
    (B, T, H, K), V, C = q.shape, v.shape[-1], chunk(v.dtype)
    chunks, shared = triton.cdiv(T, C), _shared(v)
    grads = _gradients(q, v, gate_grad, start_grad)
    dq, dk, dv, da, db, dg, dstart = grads
    dc, dstates = torch.empty_like(c), torch.empty_like(states)
    config = configs.backward(K, V, v.dtype)
    backward_kernel[(B * H * triton.cdiv(V, config.block_n),)](
        asked, reading, given_k, given_b, ends, y, scores_k, scores_b, do,
        dstart if grad_final is None else grad_final.float().contiguous(), dv, dc, dstates, dstart,
        scale, T, H, K, V, chunks, *rows(do),
        BK=config.block_m, BV=config.block_n, HAS_FINAL=grad_final is not None, START=start_grad,
        EVEN_K=config.block_m == K, EVEN_V=V % config.block_n == 0, **config.compiled(), **shared,
    )  # fmt: skip
    config = configs.pairs(K, V, v.dtype)
    pairs = [torch.empty_like(z) for _ in range(4)]
    pairs_kernel[(B * H * chunks,)](
        v, c, z, do, dc, *pairs, scale, T, H, V, chunks, *rows(v), *rows(do),
        BV=config.block_n, EVEN_V=V % config.block_n == 0, **config.compiled(), **shared,
    )  # fmt: skip
    sizes = (scale, T, H, K, V, chunks)
    config = configs.readers(K, V, v.dtype)
    readers_kernel[(B * H * chunks * triton.cdiv(K, config.block_m),)](
        *factored, sums, strong, ends, do, dc, states, *pairs, dq, da, dg, *sizes, *rows(do),
        **config.tile(K, V), **config.compiled(), GATE_GRAD=gate_grad, **shared,
    )  # fmt: skip
    config = configs.writers(K, V, v.dtype)
    writers_kernel[(B * H * chunks * triton.cdiv(K, config.block_m),)](
        *factored, v, sums, strong, ends, c, states, dstates, *pairs, dk, db, dg,
        *sizes[1:], *rows(v),
        **config.tile(K, V), **config.compiled(), GATE_GRAD=gate_grad, **shared,
    )  # fmt: skip
    config = configs.exact_pull(K, V, v.dtype)
    runs = triton.cdiv(chunks, CHUNKS_AT_ONCE)
    exact_pull_kernel[(B * H * runs * triton.cdiv(K, config.block_m),)](
        q, k, a, b, v, sums, strong, c, do, dc, states, dstates, *pairs, dq, dk, da, db, dg, *sizes,
        *rows(q), *rows(k), *rows(a), *rows(b), *rows(v), *rows(do),
        **config.tile(K, V), **config.compiled(), GATE_GRAD=gate_grad, AT_ONCE=CHUNKS_AT_ONCE,
        **shared,
    )  # fmt: skip
    return grads


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    return _gradients(q, v, gate_grad, start_grad)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *streams, _, _, ctx.scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*streams, *output[2:])


def _pull(
    ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    q, k, v, a, b, *kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    *_, gate_grad, start_grad, _, _ = ctx.needs_input_grad
    dq, dk, dv, da, db, dg, dstart = _backward_op(
        q, k, v, a, b, kept, grad_o, grad_final, ctx.scale, gate_grad, start_grad
    )
    of_gates, of_start = dg if gate_grad else None, dstart if start_grad else None
    return dq, dk, dv, da, db, of_gates, of_start, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _room(q: Tensor, v: Tensor, keep: bool) -> list[Tensor]:
    """o, final state, and in `kept`'s order what passes leave for later ones; some empty."""
    (B, T, H, K), V, C = q.shape, v.shape[-1], chunk(v.dtype)
    chunks = (B, H, -(-T // C))
    inner = operands(K, V, v.dtype)
    # In float64 for float32 inputs, because differences of sums are taken.
    exact = torch.float64 if v.dtype == torch.float32 else torch.float32
    return [
        v.new_empty(v.shape),
        v.new_empty((B, H, K, V), dtype=torch.float32),
        v.new_empty((*chunks, C, K), dtype=exact),  # the gates' sums
        v.new_empty((*chunks, -(-K // 64)), dtype=torch.int32),  # which are strong
        v.new_empty((*chunks, 3, K), dtype=torch.float32),  # ends
        *(v.new_empty((*chunks, C, C), dtype=inner) for _ in range(4)),  # scores of k and b, Z, Y
        v.new_empty(v.shape if keep else (0,), dtype=inner),  # c
        v.new_empty((*chunks, K, V) if keep else (0,), dtype=inner),  # states
        # asked, sought, given of k and b, W
        *(v.new_empty(q.shape, dtype=inner) for _ in range(5)),
    ]


def _gradients(q: Tensor, v: Tensor, gate_grad: bool, start_grad: bool) -> list[Tensor]:
    """Room for gradients of q, k, v, a, b, log_decay and the initial state; some empty."""
    (B, _, H, K), V = q.shape, v.shape[-1]
    return [
        q.new_empty(q.shape),
        q.new_empty(q.shape),
        v.new_empty(v.shape),
        q.new_empty(q.shape),
        q.new_empty(q.shape),
        q.new_empty(q.shape if gate_grad else (0,), dtype=torch.float32),
        q.new_empty((B, H, K, V) if start_grad else (0,), dtype=torch.float32),
    ]


def _shared(v: Tensor) -> dict[str, Any]:
    """The kernels' common constants. Sums around bfloat16 products lose nothing in tf32."""
    precision = "ieee" if v.dtype == torch.float32 else "tf32"
    return {"C": chunk(v.dtype), "PRECISION": precision}
