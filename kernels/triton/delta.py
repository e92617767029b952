"""chunk_delta's Triton form: passes over a sequence as torch operators, autograd between them.

For the backward pass each chunk keeps its system, scores and corrections, the state before it and,
with a decay per channel, its keys and queries times their decays. Where the state's columns decay,
the sweeps go through those decays, and the gradients have kernels of their own (column_decays.py,
delta_column_pull.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from ..steps import at_first_step, at_last_step
from . import delta_configs as configs
from .delta_column_launches import launch_column_pairs, launch_column_pull, sum_columns
from .delta_launches import launch_pull, launch_solve
from .delta_pull import pairs_kernel
from .delta_sweep import backward_kernel, forward_kernel
from .launches import CHANNEL, kind_of
from .operators import operator
from .strides import rows, rows_adjacent


def delta_fused(
    q: Tensor,  # [B, T, H, K]; q, k, v and erase_key of one dtype, bfloat16 or float32
    k: Tensor,  # [B, nT, H, K]: n steps a token
    v: Tensor,  # [B, nT, H, V]
    beta: Tensor,  # [B, nT, H] float32
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    value_log_decay: Tensor | None,  # [B, T, H, V]
    erase_key: Tensor | None,  # [B, nT, H, K]; None: k
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    steps = k.shape[1] // q.shape[1]
    q = at_last_step(q, steps)
    log_decay, value_log_decay = (
        None if decay is None else at_first_step(decay, steps)
        for decay in (log_decay, value_log_decay)
    )
    if log_decay is None and v.dtype == torch.float32:
        # Without a gate, dk was wrong by 11 % on an H200 (Triton 3.6) beside an erase key of 100.
        log_decay = torch.zeros_like(beta)
    inputs = (q, k, v, beta, log_decay, value_log_decay, erase_key, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    keep_systems = keep and value_log_decay is not None and value_log_decay.requires_grad
    o, final, *_ = _forward_op(*inputs, scale, keep, keep_systems, steps)
    return o[:, steps - 1 :: steps], final


@operator("delta_forward", outputs=13)
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    erase_key: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
    keep_systems: bool,
    steps: int,
) -> list[Tensor]:
    """o, the final state; for the backward pass what `_Kept` names."""
    q, k, v, beta = *(rows_adjacent(x) for x in (q, k, v)), beta.contiguous()
    p = k if erase_key is None else rows_adjacent(erase_key)
    o, final, *room = _room(q, v, log_decay, value_log_decay, keep, keep_systems)
    kept = _Kept(*room)
    columns = kept.columns()
    (B, T, H, K), V, C = q.shape, v.shape[-1], configs.chunk(v.dtype)
    chunks = triton.cdiv(T, C)
    shared = _shared(v, log_decay, erase_key)
    size = (K, V, v.dtype, shared["GATE"])
    is_plain = erase_key is None and steps == 1 and columns is None
    config = configs.solve(*size, is_plain=is_plain)
    launch_solve(
        (q, k, p), beta, kept.sums if log_decay is None else log_decay.contiguous(),
        (kept.sums, kept.strong, kept.solved, kept.scores), kept.factored(), config, shared,
        system_ptr=kept.systems if keep_systems else None,
    )  # fmt: skip
    if value_log_decay is not None:
        sum_columns(value_log_decay, kept.column_sums)
    if shared["GATE"] == CHANNEL:
        q, k, p = kept.factored()
    config = configs.forward(*size, is_plain=is_plain)
    config = config if columns is None else configs.with_columns(config)
    start = final if initial_state is None else initial_state.contiguous()
    forward_kernel[(B * H * triton.cdiv(V, config.block_n),)](
        q, k, p, v, beta, kept.sums, kept.solved, kept.scores, start, o, final, kept.corrections,
        kept.states, scale, T, H, K, V, chunks, *rows(q), *rows(k), *rows(p), *rows(v),
        BK=config.block_m, BV=config.block_n, HAS_START=initial_state is not None, SAVE=keep,
        EVEN_K=config.block_m == K, EVEN_V=V % config.block_n == 0, columns_ptr=columns,
        **config.compiled(), **shared,
    )  # fmt: skip
    return [o, final, *room]


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    erase_key: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
    keep_systems: bool,
    steps: int,
) -> list[Tensor]:
    return _room(q, v, log_decay, value_log_decay, keep, keep_systems)


@operator("delta_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    erase_key: Tensor | None,
    kept_tensors: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    steps: int,
    gate_grad: bool,
    column_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    """Gradients of q, k, v, beta, log_decay, the columns' decays, erase_key and the initial state;
    some empty.
    """
    kept = _Kept(*kept_tensors)
    columns = kept.columns()
    q, k, do = (rows_adjacent(x) for x in (q, k, grad_o.to(v.dtype)))
    p, beta = k if erase_key is None else rows_adjacent(erase_key), beta.contiguous()
    (B, T, H, K), V, C = q.shape, v.shape[-1], configs.chunk(v.dtype)
    chunks, shared = triton.cdiv(T, C), _shared(v, log_decay, erase_key)
    grads = _gradients(q, k, v, beta, log_decay, erase_key, gate_grad, column_grad, start_grad)
    dq, dk, dv, dbeta, dg, dh, dp, dstart = grads
    streams = kept.factored() if shared["GATE"] == CHANNEL else (q, k, p)
    size = (K, V, v.dtype, shared["GATE"])
    is_plain = erase_key is None and steps == 1 and columns is None
    config = configs.backward(*size, is_plain=is_plain)
    config = config if columns is None else configs.with_columns(config)
    parts = triton.cdiv(V, config.block_n)
    dbeta_parts, dstates = _parts(dbeta, parts), torch.empty_like(kept.states)
    dfinal = dstart if grad_final is None else grad_final.float().contiguous()
    backward_kernel[(B * H * parts,)](
        *streams, beta, kept.sums, kept.solved, kept.scores, kept.corrections, do, dfinal,
        dv, dbeta_parts, dstates, dstart, scale, T, H, K, V, chunks, dbeta_parts.stride(0),
        *(stride for x in (*streams, do) for stride in rows(x)),
        BK=config.block_m, BV=config.block_n, HAS_FINAL=grad_final is not None, START=start_grad,
        EVEN_K=config.block_m == K, EVEN_V=V % config.block_n == 0, columns_ptr=columns,
        **config.compiled(), **shared,
    )  # fmt: skip
    states, written = (kept.states, dstates), (kept.corrections, do, dv)
    if columns is not None and column_grad:
        launch_column_pull(
            streams, beta, kept.sums, columns, (kept.systems, kept.scores), written, states, dh,
            scale, configs.with_columns(configs.pull(*size, is_plain=is_plain)), shared, steps,
        )  # fmt: skip
    config = configs.pairs(*size, is_plain=is_plain)
    pairs = torch.empty_like(kept.scores), torch.empty_like(kept.scores)
    if columns is None:
        pairs_kernel[(B * H * chunks,)](
            beta, kept.sums, *written, *pairs, scale, T, H, V, chunks, *rows(do),
            C=C, BV=config.block_n, GATE=shared["GATE"], EVEN_V=V % config.block_n == 0,
            PRECISION=shared["PRECISION"], **config.compiled(),
        )  # fmt: skip
    else:
        config = configs.with_columns(config)
        written = launch_column_pairs(
            beta, kept.sums, columns, written, pairs, scale, config, shared
        )
    config = configs.pull(*size, is_plain=is_plain)
    parts = triton.cdiv(K, config.block_m)
    dg_parts = _parts(dg, parts if dg.dim() == 3 else 1)
    launch_pull(
        (q, k, p), beta, kept.sums, kept.strong, written, states, pairs,
        (dq, dk, dp, dg_parts), scale, config, shared, GATE_GRAD=gate_grad, STEPS=steps,
        columns_ptr=columns,
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
    erase_key: Tensor | None,
    kept_tensors: list[Tensor],
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    steps: int,
    gate_grad: bool,
    column_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    return _gradients(q, k, v, beta, log_decay, erase_key, gate_grad, column_grad, start_grad)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, erase_key, _, ctx.scale, _, _, ctx.steps = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*tensors, erase_key, *output[2:])


def _pull(
    ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    q, k, v, beta, log_decay, erase_key, *kept = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    _, _, _, _, gate_grad, column_grad, _, start_grad, *_ = ctx.needs_input_grad
    # Gates of 0 in the place of none run the kernel that was checked with them.
    with_gates = gate_grad or (log_decay is not None and v.dtype == torch.float32)
    dq, dk, dv, dbeta, dg, dh, dp, dstart = _backward_op(
        q, k, v, beta, log_decay, erase_key, kept, grad_o, grad_final, ctx.scale, ctx.steps,
        with_gates, column_grad, start_grad,
    )  # fmt: skip
    of_gates = dg.to(log_decay.dtype) if gate_grad else None
    of_columns = dh if column_grad else None
    of_erase_key = None if erase_key is None else dp
    of_start = dstart if start_grad else None
    return dq, dk, dv, dbeta, of_gates, of_columns, of_erase_key, of_start, *[None] * 4


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What passes leave for later ones; empty tensors where a call has no such."""

    sums: Tensor  # of gates in each chunk
    strong: Tensor  # [B, H, N, K / 64], where an exact launch has the work
    solved: Tensor  # Z of delta_solve.py, [B, H, N, C, C]
    scores: Tensor  # [B, H, N, C, C]
    corrections: Tensor  # [B, nT, H, V]
    states: Tensor  # before each chunk, [B, H, N, K, V]
    asking: Tensor  # q, k and p with a channel's gate in them, [B, nT, H, K]
    giving: Tensor
    erasing: Tensor
    column_sums: Tensor  # of the columns' decays, [B, H, N, C, V]
    systems: Tensor  # A of delta_solve.py, for the gradient of those decays, [B, H, N, C, C]

    def factored(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.asking, self.giving, self.erasing

    def columns(self) -> Tensor | None:
        """None for kernels that are compiled without decays of columns."""
        return self.column_sums if self.column_sums.numel() > 0 else None


def _room(
    q: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    keep: bool,
    keep_systems: bool,
) -> list[Tensor]:
    """For o, the final state and what `_Kept` names."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    C, gate = configs.chunk(v.dtype), kind_of(log_decay)
    chunks = (B, H, -(-T // C))
    inner = configs.operands(K, V, v.dtype)
    # In float64 for float32 inputs, because differences of sums are taken.
    exact = torch.float64 if v.dtype == torch.float32 else torch.float32
    scaled = q.shape if gate == CHANNEL else (0,)
    return [
        v.new_empty(v.shape),
        v.new_empty((B, H, K, V), dtype=torch.float32),
        v.new_empty(((0,), (*chunks, C), (*chunks, C, K))[gate], dtype=exact),
        v.new_empty((*chunks, -(-K // 64)) if gate == CHANNEL else (0,), dtype=torch.int32),
        v.new_empty((*chunks, C, C), dtype=inner),
        v.new_empty((*chunks, C, C), dtype=inner),
        v.new_empty(v.shape if keep else (0,), dtype=inner),
        v.new_empty((*chunks, K, V) if keep else (0,), dtype=inner),
        v.new_empty(scaled, dtype=inner),
        v.new_empty(scaled, dtype=inner),
        v.new_empty(scaled, dtype=inner),
        v.new_empty((0,) if value_log_decay is None else (*chunks, C, V), dtype=exact),
        v.new_empty((*chunks, C, C) if keep_systems else (0,), dtype=inner),
    ]


def _gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    erase_key: Tensor | None,
    gate_grad: bool,
    column_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    """Room for what `_backward_op` gives."""
    (B, _, H, K), V = q.shape, v.shape[-1]
    return [
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        beta.new_empty(beta.shape),
        beta.new_empty((0,) if log_decay is None or not gate_grad else log_decay.shape),
        beta.new_empty(v.shape if column_grad else (0,)),
        k.new_empty((0,) if erase_key is None else k.shape),
        beta.new_empty((B, H, K, V) if start_grad else (0,)),
    ]


def _parts(x: Tensor, parts: int) -> Tensor:
    """Room for what adds up to x: [1, ...] is x itself."""
    return x[None] if parts == 1 else x.new_empty((parts, *x.shape))


def _add_parts(parts: Tensor, x: Tensor) -> None:
    if len(parts) > 1:
        torch.sum(parts, 0, out=x)


def _shared(v: Tensor, log_decay: Tensor | None, erase_key: Tensor | None) -> dict[str, Any]:
    """The kernels' common constants. Sums around bfloat16 products lose nothing in tf32."""
    precision = "ieee" if v.dtype == torch.float32 else "tf32"
    return {
        "C": configs.chunk(v.dtype),
        "GATE": kind_of(log_decay),
        "OWN_KEY": erase_key is None,
        "PRECISION": precision,
    }
