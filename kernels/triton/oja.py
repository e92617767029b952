"""chunk_oja's Triton form: the delta rule on the transposed state, read from its other side.

The transposed state [V, K] is the delta rule's with key v and value k. A pass makes corrections and
states (oja_sweep.py), and outputs are read from what it kept (oja_read.py). In reverse do asks and
q is what it asks for, as the delta rule's query and its output's gradient: all but the gradient of
q are gradients of that rule, so its kernels make them. It solves again in the place of keeping
systems: for the backward pass each chunk keeps its corrections and the state before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from . import oja_configs as configs
from .config_table import Config
from .delta import _add_parts, _parts
from .delta_configs import chunk
from .delta_launches import launch_pull, launch_solve
from .delta_pull import pairs_kernel
from .delta_sweep import backward_kernel
from .launches import CHANNEL, kind_of
from .oja_read import outputs_kernel, queries_kernel
from .oja_sweep import corrections_kernel
from .operators import operator
from .strides import rows, rows_adjacent


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
    if log_decay is None and v.dtype == torch.float32:
        log_decay = torch.zeros_like(beta)  # as for the delta rule, which names the reason
    start = None if initial_state is None else initial_state.mT
    inputs = (q, k, v, beta, log_decay, start)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final, *_ = _forward_op(*inputs, scale, keep)
    return o, final.mT


@operator("oja_forward")
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    start: Tensor | None,  # transposed, as all states here
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """o, the final state; for the backward pass corrections and states, empty if not to keep."""
    q, k, v, beta = *(rows_adjacent(x) for x in (q, k, v)), beta.contiguous()
    (B, T, H, K), V, dtype = q.shape, v.shape[-1], v.dtype
    solved = _solve(None, v, beta, log_decay, z_dtype=torch.float32)
    o, final, corrections, states = _room(q, v, keep=True)
    chunks, shared = states.shape[2], _shared(dtype, log_decay)
    config = configs.recurrence(K, V, dtype, shared["GATE"])
    corrections_kernel[(B * H * triton.cdiv(K, config.block_m),)](
        solved.giving, solved.erasing, k, beta, solved.sums, solved.z,
        final if start is None else start.contiguous(), final, corrections, states,
        T, H, K, V, chunks, *rows(solved.giving), *rows(k),
        BV=config.block_n, BK=config.block_m, HAS_START=start is not None,
        EVEN_V=config.block_n == V, EVEN_K=K % config.block_m == 0,
        **config.compiled(), **shared,
    )  # fmt: skip
    config = configs.read(K, V, dtype)
    outputs_kernel[(B * H * chunks * triton.cdiv(V, config.block_n),)](
        q, v, beta, solved.sums, solved.strong, corrections, states, o,
        scale, T, H, K, V, chunks, *rows(q), *rows(v),
        BV=config.block_n, BK=config.block_m, EVEN_V=V % config.block_n == 0,
        EVEN_K=K % config.block_m == 0, **config.compiled(), **shared,
    )  # fmt: skip
    return (o, final, corrections, states) if keep else (o, final, *_room(q, v, keep=False)[2:])


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    start: Tensor | None,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _room(q, v, keep)


@operator("oja_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, beta, log_decay and the initial state, the last two maybe empty."""
    corrections, states = kept
    q, v, do = (rows_adjacent(x) for x in (q, v, grad_o.to(v.dtype)))
    beta = beta.contiguous()
    (B, T, H, K), V, dtype = q.shape, v.shape[-1], v.dtype
    solved = _solve(do, v, beta, log_decay, z_dtype=corrections.dtype)
    grads = _gradients(q, k, v, beta, log_decay, gate_grad, start_grad)
    dq, dk, dv, dbeta, dg, dstart = grads
    chunks, shared = states.shape[2], _shared(dtype, log_decay)
    asking, giving, erasing = solved.asking, solved.giving, solved.erasing

    # The delta rule's kernels call q what asks, k what gives and v what is held: here do, v and k.
    config = configs.recurrence(K, V, dtype, shared["GATE"])
    parts = triton.cdiv(K, config.block_m)
    dbeta_parts, dstates = _parts(dbeta, parts), torch.empty_like(states)
    dfinal = dstart if grad_final is None else grad_final.contiguous()
    backward_kernel[(B * H * parts,)](
        asking, giving, erasing, beta, solved.sums, solved.z, solved.scores, corrections, q, dfinal,
        dk, dbeta_parts, dstates, dstart, scale, T, H, V, K, chunks, dbeta_parts.stride(0),
        *rows(asking), *rows(giving), *rows(erasing), *rows(q),
        BK=config.block_n, BV=config.block_m, OWN_KEY=True, HAS_FINAL=grad_final is not None,
        START=start_grad, EVEN_K=config.block_n == V, EVEN_V=K % config.block_m == 0,
        **config.compiled(), **shared,
    )  # fmt: skip
    config = configs.read(K, V, dtype)
    queries_kernel[(B * H * chunks * triton.cdiv(K, config.block_m),)](
        asking, beta, solved.sums, solved.scores, corrections, states, dq,
        scale, T, H, K, V, chunks, *rows(asking),
        BV=config.block_n, BK=config.block_m, EVEN_V=V % config.block_n == 0,
        EVEN_K=K % config.block_m == 0, **config.compiled(), **shared,
    )  # fmt: skip
    config = configs.pairs(K, V, dtype)
    pairs_q, pairs_p = torch.empty_like(solved.scores), torch.empty_like(solved.scores)
    pairs_kernel[(B * H * chunks,)](
        beta, solved.sums, corrections, q, dk, pairs_q, pairs_p, scale, T, H, K, chunks, *rows(q),
        BV=config.block_m, EVEN_V=K % config.block_m == 0, **config.compiled(), **shared,
    )  # fmt: skip
    config = configs.pull(K, V, dtype, shared["GATE"])
    parts = triton.cdiv(V, config.block_n)
    dg_parts = _parts(dg, parts if dg.dim() == 3 else 1)
    launch_pull(
        (do, v, v), beta, solved.sums, solved.strong, (corrections, q, dk), (states, dstates),
        (pairs_q, pairs_p), (dv, dv, dv, dg_parts), scale,
        _of_values(config), {**shared, "OWN_KEY": True}, GATE_GRAD=gate_grad, STEPS=1, OF_Q=False,
    )  # fmt: skip
    _add_parts(dbeta_parts, dbeta)
    _add_parts(dg_parts, dg)
    return grads


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    kept: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(q, k, v, beta, log_decay, gate_grad, start_grad)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, beta, log_decay, _, ctx.scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(q, k, v, beta, log_decay, *output[2:])


def _pull(
    ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    q, k, v, beta, log_decay, *kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    _, _, _, _, gate_grad, start_grad, *_ = ctx.needs_input_grad
    # Gates of 0 in the place of none run the kernel that was checked with them.
    with_gates = gate_grad or (log_decay is not None and v.dtype == torch.float32)
    dq, dk, dv, dbeta, dg, dstart = _backward_op(
        q, k, v, beta, log_decay, kept, grad_o, grad_final, ctx.scale, with_gates, start_grad
    )
    of_gates = dg.to(log_decay.dtype) if gate_grad else None
    return dq, dk, dv, dbeta, of_gates, dstart if start_grad else None, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _of_values(config: Config) -> Config:
    """As the delta rule's kernels take it, whose keys are the values here."""
    return replace(config, block_m=config.block_n, block_n=config.block_m)


@dataclass(frozen=True, slots=True)
class _Solved:
    """What `solve_kernel` finds of each chunk; empty tensors where a gate's kind has no such."""

    z: Tensor
    scores: Tensor  # of do and v
    sums: Tensor
    strong: Tensor
    asking: Tensor  # do, v and v, with a channel's gate in them
    giving: Tensor
    erasing: Tensor


def _solve(
    do: Tensor | None, v: Tensor, beta: Tensor, log_decay: Tensor | None, z_dtype: torch.dtype
) -> _Solved:
    """do: the output's gradient, None if it is not there yet."""
    (B, T, H, V), shared = v.shape, _shared(v.dtype, log_decay)
    gate, C = shared["GATE"], shared["C"]
    inner = configs.operands(V, v.dtype)
    chunks = (B, H, -(-T // C))
    # In float64 for float32 inputs, because differences of sums are taken.
    exact = torch.float64 if v.dtype == torch.float32 else torch.float32
    sums = ((0,), (*chunks, C), (*chunks, C, V))[gate]
    asked = v if do is None else do
    by_channel = gate == CHANNEL
    solved = _Solved(
        z=v.new_empty((*chunks, C, C), dtype=z_dtype),
        scores=v.new_empty((0,) if do is None else (*chunks, C, C), dtype=inner),
        sums=v.new_empty(sums, dtype=exact),
        strong=v.new_empty((*chunks, -(-V // 64)) if by_channel else (0,), dtype=torch.int32),
        asking=asked.new_empty(v.shape, dtype=inner) if by_channel and do is not None else asked,
        giving=v.new_empty(v.shape, dtype=inner) if by_channel else v,
        erasing=v.new_empty(v.shape, dtype=inner) if by_channel else v,
    )
    config = configs.solve(V, v.dtype, gate)
    launch_solve(
        (asked, v, v), beta, solved.sums if log_decay is None else log_decay.contiguous(),
        (solved.sums, solved.strong, solved.z, solved.scores),
        (solved.asking, solved.giving, solved.erasing),
        _of_values(config), {**shared, "OWN_KEY": True}, ASKED=do is not None,
    )  # fmt: skip
    return solved


def _room(q: Tensor, v: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """o, the final state, corrections and the state before each chunk, the last two if to keep."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    inner = configs.operands(V, v.dtype)
    states = (B, H, -(-T // chunk(v.dtype)), V, K)
    return (
        v.new_empty(v.shape),
        v.new_empty((B, H, V, K), dtype=torch.float32),
        v.new_empty(q.shape if keep else (0,), dtype=inner),
        v.new_empty(states if keep else (0,), dtype=inner),
    )


def _gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for gradients of q, k, v, beta, log_decay and the initial state; the last two if asked
    for.
    """
    (B, _, H, K), V = q.shape, v.shape[-1]
    return (
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        beta.new_empty(beta.shape),
        beta.new_empty((0,) if log_decay is None or not gate_grad else log_decay.shape),
        beta.new_empty((B, H, V, K) if start_grad else (0,)),
    )


def _shared(dtype: torch.dtype, log_decay: Tensor | None) -> dict[str, Any]:
    """The kernels' common constants. Sums around bfloat16 products lose nothing in tf32."""
    return {
        "C": chunk(dtype),
        "GATE": kind_of(log_decay),
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
    }
