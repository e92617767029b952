"""scan's Triton form as torch operators: one kernel forward, one backward (scan_sweep.py).

Where that makes too few programs, sequences are cut into segments: another kernel finds what each
adds to the state, and programs start from the sum of those before. The backward pass keeps h and
the gates, and nothing is done for the gradient of a final state that nobody used.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from .operators import operator
from .scan_sweep import scan_kernel, scan_pull_kernel, segment_kernel
from .strides import rows_adjacent

_TILE = {"RUNS": 16, "RUN": 8, "BD": 32, "STAGES": 3, "num_warps": 4}
_TILE_TOKENS = _TILE["RUNS"] * _TILE["RUN"]
# Segments read x and g twice, 14 bytes where 8 are enough. A processor alone should stream some 1.5
# times its share of the bandwidth, so that half of the 132 do as well without. Not yet measured.
_FEW_PROGRAMS, _MOST_PROGRAMS = 66, 264
_FEWEST_SEGMENTS, _SHORTEST_SEGMENT = 4, 2 * _TILE_TOKENS


def scan_fused(
    x: Tensor,  # [B, T, D]
    log_decay: Tensor,  # [D] or [B, T, D]; it and x of any dtype but float64
    initial_state: Tensor | None,  # [B, D] float32
) -> tuple[Tensor, Tensor]:
    """h [B, T, D] in x's dtype and the final state [B, D] in float32."""
    h: Tensor
    final: Tensor
    h, final = _forward_op(x, log_decay, initial_state)
    return h, final


@operator("scan_forward")
def _forward_op(
    x: Tensor, log_decay: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    x, log_decay = rows_adjacent(x), rows_adjacent(log_decay)
    start = None if initial_state is None else initial_state.contiguous()
    h, final = _forward_shapes(x, log_decay, initial_state)
    grid, sizes, decays, added = _segments(x, log_decay, reverse=False)
    scan_kernel[grid](
        x, log_decay, h if start is None else start, decays, added, h, final,
        *sizes, *_strides(x), *_strides(log_decay), HAS_START=start is not None, **_TILE,
    )  # fmt: skip
    return h, final


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, log_decay: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    B, _, D = x.shape
    return x.new_empty(x.shape), x.new_empty((B, D), dtype=torch.float32)


@operator("scan_backward")
def _backward_op(
    grad_h: Tensor,
    grad_final: Tensor | None,
    log_decay: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    """Gradients of x, log_decay and the initial state; the last two empty if not asked."""
    dh, log_decay = rows_adjacent(grad_h), rows_adjacent(log_decay)
    start = None if initial_state is None else initial_state.contiguous()
    dfinal = None if grad_final is None else grad_final.contiguous()
    dx, dg, dstart = _backward_shapes(
        grad_h, grad_final, log_decay, h, initial_state, gate_grad, start_grad
    )
    grid, sizes, decays, added = _segments(dh, log_decay, reverse=True)
    sums_gates = gate_grad and log_decay.dim() == 1
    if sums_gates:
        parts = h.new_empty((h.shape[0] * sizes[2], h.shape[2]), dtype=torch.float32)
    scan_pull_kernel[grid](
        dh, log_decay, h, h if start is None else start, h if dfinal is None else dfinal,
        decays, added, dx, parts if sums_gates else dg, dstart,
        *sizes, *_strides(dh), *_strides(log_decay),
        HAS_START=start is not None, HAS_DFINAL=dfinal is not None, GATE_GRAD=gate_grad,
        CONSTANT=sums_gates, START_GRAD=start_grad, **_TILE,
    )  # fmt: skip
    if sums_gates:
        dg = parts.sum(0).to(dg.dtype)
    return [dx, dg, dstart]


@_backward_op.register_fake
def _backward_shapes(
    grad_h: Tensor,
    grad_final: Tensor | None,
    log_decay: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    gate_grad: bool,
    start_grad: bool,
) -> list[Tensor]:
    B, _, D = h.shape
    return [
        h.new_empty(h.shape),
        log_decay.new_empty(log_decay.shape if gate_grad else (0,)),
        h.new_empty((B, D) if start_grad else (0,), dtype=torch.float32),
    ]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, log_decay, initial_state = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(log_decay, output[0], initial_state)


def _pull(
    ctx: Any, grad_h: Tensor | None, grad_final: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    log_decay, h, initial_state = ctx.saved_tensors
    _, gate_grad, start_grad = ctx.needs_input_grad
    if grad_h is None:
        grad_h = h.new_zeros(h.shape[-1]).expand(h.shape)
    dx, dg, dstart = _backward_op(
        grad_h, grad_final, log_decay, h, initial_state, gate_grad, start_grad
    )
    return dx, dg if gate_grad else None, dstart if start_grad else None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _segment_count(programs: int, length: int) -> int:
    """How many a sequence is cut into when `programs` go through whole ones."""
    if programs >= _FEW_PROGRAMS:
        return 1
    segments = min(_MOST_PROGRAMS // programs, length // _SHORTEST_SEGMENT)
    return segments if segments >= _FEWEST_SEGMENTS else 1


def _segments(
    x: Tensor, log_decay: Tensor, *, reverse: bool
) -> tuple[tuple[int], tuple[int, int, int, int], Tensor, Tensor]:
    """The grid, the kernels' sizes, and each segment's decay and addition to the state."""
    B, T, D = x.shape
    programs = B * triton.cdiv(D, _TILE["BD"])
    tiles = triton.cdiv(T, _segment_count(programs, T) * _TILE_TOKENS)
    segments = triton.cdiv(T, tiles * _TILE_TOKENS)
    decays, added = x.new_empty((2, B, segments, D), dtype=torch.float32)
    grid, sizes = (programs * segments,), (T, D, segments, tiles)
    if segments > 1:
        segment_kernel[grid](
            x, log_decay, decays, added, *sizes, *_strides(x), *_strides(log_decay),
            REVERSE=reverse, **_TILE,
        )  # fmt: skip
    return grid, sizes, decays, added


def _strides(x: Tensor) -> tuple[int, int]:
    """Of sequences and tokens; a constant [D] is the same for all of them."""
    return (0, 0) if x.dim() == 1 else (x.stride(0), x.stride(1))
