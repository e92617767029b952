"""causal_attention's Triton form as torch operators: one kernel forward, two backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import configs
from .attention_backward import pull_keys_kernel, pull_queries_kernel
from .attention_forward import attend_kernel
from .configs import Config
from .operators import operator
from .strides import rows, rows_adjacent
from .tiles import LOG2_E, LOWEST_LOG_DECAY


def attention_fused(
    q: Tensor,  # [B, T, H, K]; q, k and v of one dtype, bfloat16 or float32
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    log_decay: Tensor | None,  # [B, T, H]
    sinks: Tensor | None,  # [H] float32
    window: int | None,
    scale: float,
) -> Tensor:
    """[B, T, H, V]."""
    sums = None
    if log_decay is not None:
        of_heads = log_decay.clamp(min=LOWEST_LOG_DECAY.value).transpose(1, 2)
        sums = of_heads.to(torch.float64, memory_format=torch.contiguous_format).cumsum(-1)
    length = q.shape[1]
    o, _ = _forward_op(q, k, v, sums, sinks, length if window is None else window, scale)
    return o


@operator("attention_forward")
def _forward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor | None,
    sinks: Tensor | None,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o, and the logarithm to base 2 of each query's sum of weights, [B, H, T]."""
    q, k, v = (rows_adjacent(x) for x in (q, k, v))
    (B, T, H, K), V = q.shape, v.shape[-1]
    o, lse = _forward_room(q, v)
    tile = configs.attention(K, V, v.dtype)
    attend_kernel[(B * H * triton.cdiv(T, tile.block_m),)](
        q, k, v, q if sums is None else sums.contiguous(),
        q if sinks is None else sinks.contiguous(), o, lse,
        scale, T, H, K, V, min(window, T), *rows(q), *rows(k), *rows(v),
        SINKS=sinks is not None, **_compiled(tile, K, V, sums, v.dtype),
    )  # fmt: skip
    return o, lse


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor | None,
    sinks: Tensor | None,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return _forward_room(q, v)


@operator("attention_backward")
def _backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor | None,
    sinks: Tensor | None,
    o: Tensor,
    lse: Tensor,
    grad: Tensor,
    window: int,
    scale: float,
    gate_grad: bool,
) -> list[Tensor]:
    """Gradients of q, k, v, sums and sinks; the last two empty if there are none or not asked."""
    q, k, v, do = (rows_adjacent(x) for x in (q, k, v, grad.to(v.dtype)))
    (B, T, H, K), V = q.shape, v.shape[-1]
    dq, dk, dv, dsums, _ = grads = _backward_room(q, k, v, sums, sinks, gate_grad)
    delta, sums = torch.empty_like(lse), None if sums is None else sums.contiguous()
    sizes = (scale, T, H, K, V, min(window, T))
    tile = configs.attention_queries(K, V, v.dtype)
    pull_queries_kernel[(B * H * triton.cdiv(T, tile.block_m),)](
        q, k, v, q if sums is None else sums, o, do, lse, delta, dq, dsums, *sizes,
        *rows(q), *rows(k), *rows(v), *rows(o), *rows(do),
        GATE_GRAD=gate_grad, **_compiled(tile, K, V, sums, v.dtype),
    )  # fmt: skip
    tile, passes = configs.attention_keys(K, V, v.dtype)
    for of_k, of_v in passes:
        pull_keys_kernel[(B * H * triton.cdiv(T, tile.block_n),)](
            q, k, v, q if sums is None else sums, do, lse, delta, dk, dv, dsums, *sizes,
            *rows(q), *rows(k), *rows(v), *rows(do),
            GATE_GRAD=gate_grad and of_k, OF_K=of_k, OF_V=of_v,
            **_compiled(tile, K, V, sums, v.dtype),
        )  # fmt: skip
    if sinks is not None:
        weights = torch.exp2(sinks[:, None] * LOG2_E.value - lse)
        grads[4] = -(weights * delta).sum((0, 2))
    return grads


@_backward_op.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor | None,
    sinks: Tensor | None,
    o: Tensor,
    lse: Tensor,
    grad: Tensor,
    window: int,
    scale: float,
    gate_grad: bool,
) -> list[Tensor]:
    return _backward_room(q, k, v, sums, sinks, gate_grad)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)


def _pull(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, sums, sinks, o, lse = ctx.saved_tensors
    grad = torch.zeros_like(o) if grad is None else grad
    gate_grad = ctx.needs_input_grad[3]
    dq, dk, dv, dsums, dsinks = _backward_op(
        q, k, v, sums, sinks, o, lse, grad, ctx.window, ctx.scale, gate_grad
    )
    of_gates = dsums.double() if gate_grad else None
    return dq, dk, dv, of_gates, None if sinks is None else dsinks, None, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _forward_room(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    return v.new_empty(v.shape), q.new_empty((B, H, T), dtype=torch.float32)


def _backward_room(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sums: Tensor | None,
    sinks: Tensor | None,
    gate_grad: bool,
) -> list[Tensor]:
    gates = (0,) if sums is None or not gate_grad else sums.shape
    return [
        *(x.new_empty(x.shape) for x in (q, k, v)),
        q.new_empty(gates, dtype=torch.float32),
        q.new_empty((0,) if sinks is None else sinks.shape, dtype=torch.float32),
    ]


def _compiled(
    tile: Config, K: int, V: int, sums: Tensor | None, dtype: torch.dtype
) -> dict[str, Any]:
    """The arguments of a launch that are the compiler's."""
    block_k, block_v = configs.block(K, K), configs.block(V, V)
    return {
        "BM": tile.block_m,
        "BN": tile.block_n,
        "BK": block_k,
        "BV": block_v,
        "DECAY": sums is not None,
        "EXACT": dtype == torch.float32,
        "EVEN_K": block_k == K,
        "EVEN_V": block_v == V,
        "PRECISION": "ieee",
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }
