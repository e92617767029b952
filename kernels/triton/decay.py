"""chunk_decay's Triton form: sweeps as torch operators, and autograd between them.

Tiles of a state are independent of each other; outputs add up over M. For gates the backward pass
keeps a state every eighth chunk, and nothing else beyond the inputs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import configs
from .configs import ANCHOR_EVERY, CHUNK
from .gates import passing_pairs_kernel, pull_gates_kernel, sum_gates_kernel
from .sweep import sweep_kernel

_NONE, _HEAD, _IN, _OUT = 0, 1, 2, 3  # sweep_kernel's GATE
_UP, _DOWN = 1, 2  # its EMIT


def decay_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # [B, T, H] or [B, T, H, K]
    bonus: Tensor | None,  # [H, K]
    initial_state: Tensor | None,  # [B, H, K, V] float32
    scale: float,  # not 0
) -> tuple[Tensor, Tensor]:
    """o [B, T, H, V] and the final state [B, H, K, V] in float32."""
    keep = log_decay is not None and torch.is_grad_enabled() and log_decay.requires_grad
    if bonus is None:
        o, final, *_ = _forward_op(q, k, v, log_decay, initial_state, scale, keep)
        return o, final
    # Token t reads S_{t-1}: what an ordinary read one token earlier would see.
    next_q = torch.cat((q[:, 1:], torch.zeros_like(q[:, :1])), dim=1)
    o, final, *_ = _forward_op(next_q, k, v, log_decay, initial_state, scale, keep)
    if initial_state is None:
        first = torch.zeros_like(v[:, :1])
    else:
        first = scale * torch.matmul(q[:, 0, :, None].float(), initial_state).transpose(1, 2)
    own_write = (q * (scale * bonus) * k).sum(-1, keepdim=True) * v
    return torch.cat((first.to(v.dtype), o[:, :-1]), dim=1) + own_write.to(v.dtype), final


@torch.library.custom_op("linearch::decay_forward", mutates_args=())
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """o, the final state, and for the backward pass: summed gates, marks, saved states."""
    q, k, v = (_rows_adjacent(x) for x in (q, k, v))
    final, sums, strong, saved = _forward_room(q, v, log_decay, keep)
    g = _sum_gates(log_decay, sums, strong, q.shape[-1])
    start = None if initial_state is None else initial_state.contiguous()
    o = _sweep(
        q, k, v, g=g, sums=sums, strong=strong, gate=_gate(log_decay, _IN), scale=scale,
        start=start, final=final, saved=saved if keep else None, state_is_mn=True,
    )  # fmt: skip
    return o, final, sums, strong, saved


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    scale: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return v.new_empty(v.shape), *_forward_room(q, v, log_decay, keep)


@torch.library.custom_op("linearch::decay_backward", mutates_args=())
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    sums: Tensor,
    strong: Tensor,
    saved: Tensor,
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay and the initial state; the last two empty if not asked."""
    q, k, v, do = (_rows_adjacent(x) for x in (q, k, v, grad_o.to(v.dtype)))
    g = _rows_of_gates(log_decay, sums)
    start = None if initial_state is None else initial_state.contiguous()
    dfinal = None if grad_final is None else grad_final.float().contiguous()
    dstart = q.new_empty(_state_shape(q, v) if start_grad else (0,), dtype=torch.float32)
    up, down = (_room_for_emitted(log_decay, q, v, gate_grad) for _ in range(2))
    dsaved = torch.empty_like(saved)
    inside, outside = _gate(log_decay, _IN), _gate(log_decay, _OUT)
    of_gates = {"g": g, "sums": sums, "strong": strong, "scale": scale}
    dv = _sweep(
        k, q, do, gate=inside, reverse=True, start=dfinal, start_scale=1 / scale,
        final=dstart if start_grad else None, final_scale=scale, state_is_mn=True, **of_gates,
    )  # fmt: skip
    dq = _sweep(do, v, k, x=q, gate=outside, start=start, emit=_UP, emitted=up, **of_gates)
    dk = _sweep(
        v, do, q, x=k, gate=outside, reverse=True, start=dfinal, start_scale=1 / scale,
        emit=_DOWN, emitted=down, saved=dsaved if gate_grad else None, **of_gates,
    )  # fmt: skip
    dg = q.new_empty(0, dtype=torch.float32)
    if gate_grad and log_decay is not None and up is not None and down is not None:
        dg = _pull_gates(log_decay, up, down, saved, dsaved, sums, scale)
    return dq, dk, dv, dg, dstart


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    sums: Tensor,
    strong: Tensor,
    saved: Tensor,
    grad_o: Tensor,
    grad_final: Tensor | None,
    scale: float,
    gate_grad: bool,
    start_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gates = (0,) if log_decay is None or not gate_grad else log_decay.shape
    return (
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        q.new_empty(gates, dtype=torch.float32),
        q.new_empty(_state_shape(q, v) if start_grad else (0,), dtype=torch.float32),
    )


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, log_decay, initial_state, ctx.scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(q, k, v, log_decay, initial_state, *output[2:])


def _pull(
    ctx: Any, grad_o: Tensor | None, grad_final: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, initial_state, sums, strong, saved = ctx.saved_tensors
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    _, _, _, gate_grad, start_grad, *_ = ctx.needs_input_grad
    dq, dk, dv, dg, dstart = _backward_op(
        q, k, v, log_decay, initial_state, sums, strong, saved, grad_o, grad_final,
        ctx.scale, gate_grad, start_grad,
    )  # fmt: skip
    of_gates = dg.to(log_decay.dtype) if gate_grad else None
    return dq, dk, dv, of_gates, dstart if start_grad else None, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _sweep(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    g: Tensor,
    sums: Tensor,
    strong: Tensor,
    gate: int,
    scale: float,
    x: Tensor | None = None,
    reverse: bool = False,
    start: Tensor | None = None,
    start_scale: float = 1.0,
    final: Tensor | None = None,
    final_scale: float = 1.0,
    saved: Tensor | None = None,
    emit: int = 0,
    emitted: Tensor | None = None,  # [parts, B, T, H] or [parts, B, T, H, N]; None: emit nothing
    state_is_mn: bool = False,  # in memory [M, N], not [N, M]
) -> Tensor:
    (B, T, H, M), N = a.shape, c.shape[-1]
    emit = 0 if emitted is None else emit
    for exact in (False, True) if gate >= _IN else (False,):
        config = configs.sweep(M, N, c.dtype, gate, emit, exact)
        parts_m, parts_n = triton.cdiv(M, config.block_m), triton.cdiv(N, config.block_n)
        if not exact:
            dtype = c.dtype if parts_m == 1 else torch.float32
            out = c.new_empty((parts_m, B, T, H, N), dtype=dtype)
        sweep_kernel[(B * H * parts_m * parts_n,)](
            a, b, c, c if x is None else x, sums, g, strong,
            a if start is None else start, out, a if final is None else final,
            a if saved is None else saved, a if emitted is None else emitted,
            scale, start_scale, final_scale,
            T, H, M, N, triton.cdiv(T, CHUNK), ANCHOR_EVERY,
            *_rows(a), *_rows(b), *_rows(c), *_rows(c if x is None else x), *_rows(sums), *_rows(g),
            *_parts(out), *_parts(emitted), 1 if state_is_mn else M, N if state_is_mn else 1,
            C=CHUNK, BM=config.block_m, BN=config.block_n, GATE=gate, REVERSE=reverse,
            EXACT=exact, HAS_START=start is not None, FINAL=final is not None,
            SAVE=saved is not None, EMIT=emit,
            EVEN_M=M % config.block_m == 0, EVEN_N=N % config.block_n == 0, PRECISION="ieee",
            num_warps=config.num_warps, num_stages=config.num_stages,
        )  # fmt: skip
    return out[0] if len(out) == 1 else out.sum(0).to(c.dtype)


def _sum_gates(log_decay: Tensor | None, sums: Tensor, strong: Tensor, key_dim: int) -> Tensor:
    """Fill sums and strong; returns the gates as they were read."""
    g = _rows_of_gates(log_decay, sums)
    if log_decay is not None:
        B, T, D = *g.shape[:2], g[0, 0].numel()
        width, chunks = configs.block(D, 64), triton.cdiv(T, CHUNK)
        sum_gates_kernel[(B * chunks * triton.cdiv(D, width),)](
            g, sums, strong, T, D, key_dim, chunks, *_flat_strides(sums),
            C=CHUNK, BD=width, MARK=log_decay.dim() == 4,
        )  # fmt: skip
    return g


def _pull_gates(
    log_decay: Tensor,
    up: Tensor,
    down: Tensor,
    saved: Tensor,
    dsaved: Tensor,
    sums: Tensor,
    scale: float,
) -> Tensor:
    B, H, anchors, V, K = saved.shape
    T, per_channel = log_decay.shape[1], log_decay.dim() == 4
    up, down = (x[0] if len(x) == 1 else x.sum(0) for x in (up, down))
    passing = up.new_empty((B, anchors, H, K))
    chunks = triton.cdiv(T, CHUNK)
    block_k, block_v = configs.block(K, 64), configs.block(V, 64)
    passing_pairs_kernel[(B * H * anchors * triton.cdiv(K, block_k),)](
        saved, dsaved, sums, passing, scale, T, H, K, V, chunks, ANCHOR_EVERY,
        *_rows(sums), C=CHUNK, BK=block_k, BV=block_v, PER_CHANNEL=per_channel,
    )  # fmt: skip
    if not per_channel:
        passing = passing.sum(-1)
    dg = up.new_empty(log_decay.shape)
    D = up[0, 0].numel()
    width = configs.block(D, 64)
    pull_gates_kernel[(B * anchors * triton.cdiv(D, width),)](
        up, down, passing, dg, T, D, chunks, ANCHOR_EVERY, *_flat_strides(up), C=CHUNK, BD=width
    )
    return dg


def _forward_room(
    q: Tensor, v: Tensor, log_decay: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (B, T, H, K), V = q.shape, v.shape[-1]
    final = q.new_empty((B, H, K, V), dtype=torch.float32)
    sums = q.new_empty(1, 1, 1, dtype=torch.float32)
    if log_decay is not None:
        # A head's are in float64 for float32 inputs, because their differences are taken.
        wide = log_decay.dim() == 3 and v.dtype == torch.float32
        tokens = -(-T // CHUNK) * CHUNK if log_decay.dim() == 3 else T
        sums = _room_for_gates(log_decay, tokens, torch.float64 if wide else torch.float32)
    strong = q.new_zeros((B, H), dtype=torch.int32)
    anchors = -(-T // (CHUNK * ANCHOR_EVERY))
    saved = v.new_empty((B, H, anchors, V, K) if keep else (0,))
    return final, sums, strong, saved


def _room_for_emitted(
    log_decay: Tensor | None, q: Tensor, v: Tensor, wanted: bool
) -> Tensor | None:
    """For sweeps over M = V with outputs of N = K: one part for each tile that adds to a place."""
    if log_decay is None or not wanted:
        return None
    outside = _gate(log_decay, _OUT)
    config = configs.sweep(v.shape[-1], q.shape[-1], v.dtype, outside, _UP, False)
    parts = triton.cdiv(v.shape[-1], config.block_m)
    if outside == _HEAD:
        parts *= triton.cdiv(q.shape[-1], config.block_n)
    return _room_for_gates(log_decay, log_decay.shape[1], torch.float32, (parts,))


def _room_for_gates(
    log_decay: Tensor, tokens: int, dtype: torch.dtype, parts: tuple[int, ...] = ()
) -> Tensor:
    """[*parts, B, T, H] with a head's tokens adjacent, or [*parts, B, T, H, K]."""
    if log_decay.dim() == 4:
        return log_decay.new_empty((*parts, *log_decay.shape), dtype=dtype)
    B, _, H = log_decay.shape
    return log_decay.new_empty((*parts, B, H, tokens), dtype=dtype).transpose(-1, -2)


def _gate(log_decay: Tensor | None, of_channel: int) -> int:
    if log_decay is None:
        return _NONE
    return _HEAD if log_decay.dim() == 3 else of_channel


def _rows_of_gates(log_decay: Tensor | None, sums: Tensor) -> Tensor:
    return sums if log_decay is None else log_decay.contiguous()


def _state_shape(q: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    return q.shape[0], q.shape[2], q.shape[3], v.shape[3]


def _rows_adjacent(x: Tensor) -> Tensor:
    """x, or a copy where the elements of a row are apart."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _rows(x: Tensor) -> tuple[int, int, int]:
    return x.stride(0), x.stride(1), x.stride(2)


def _flat_strides(x: Tensor) -> tuple[int, int, int]:
    """Of [B, T, H] or of a contiguous [B, T, H, K] as [B, T, H * K]."""
    return x.stride(0), x.stride(1), x.stride(2) if x.dim() == 3 else 1


def _parts(x: Tensor | None) -> tuple[int, int, int, int]:
    return (0, 0, 0, 0) if x is None else (x.stride(0), *_rows(x[0]))
