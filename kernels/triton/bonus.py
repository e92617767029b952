"""add_bonus' Triton form: one kernel forward, one backward; o is not kept.

A program takes the tokens of one head, so that a part of its bonus' gradient is one row.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .norm import adjacent
from .operators import operator

_TILE = 2048  # elements
_PROGRAMS = 1056  # of a backward pass, each with a part of a head's gradient


def bonus_fused(
    o: Tensor,  # [B, T, H, V]
    q: Tensor,  # [B, T, H, K]
    k: Tensor,
    v: Tensor,  # [B, T, H, V]
    bonus: Tensor,  # [H, K] float32
    scale: float,
) -> Tensor:
    """[B, T, H, V] in o's dtype."""
    rows = (t.reshape(-1, t.shape[-1]) for t in (o, q, k, v))  # [B T H, K or V]
    y: Tensor = _forward_op(*rows, bonus, scale)
    return y.view(o.shape)


@operator("bonus_forward")
def _forward_op(o: Tensor, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor, scale: float) -> Tensor:
    y, inputs = _forward_shape(o, q, k, v, bonus, scale), [adjacent(t) for t in (o, q, k, v)]
    tokens, heads, block, widths = _sizes(v, bonus)
    bonus_kernel[(triton.cdiv(tokens, block), heads)](
        *inputs, bonus.contiguous(), y, tokens, heads, *widths, scale,
        *(t.stride(0) for t in inputs), BT=block, **_blocks(*widths), num_warps=4,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(
    o: Tensor, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor, scale: float
) -> Tensor:
    return torch.empty(o.shape, dtype=o.dtype, device=o.device)


@operator("bonus_backward")
def _backward_op(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the bonus; o's is the output's."""
    dq, dk, dv, _ = _backward_shapes(grad, q, k, v, bonus, scale)
    inputs = [adjacent(t) for t in (grad, q, k, v)]
    tokens, heads, block, widths = _sizes(v, bonus)
    programs = min(triton.cdiv(tokens, block), max(_PROGRAMS // heads, 1))
    parts = q.new_empty((programs, *bonus.shape), dtype=torch.float32)
    bonus_pull_kernel[(programs, heads)](
        *inputs, bonus.contiguous(), dq, dk, dv, parts, tokens, heads, *widths, scale,
        *(t.stride(0) for t in inputs), BT=block, **_blocks(*widths), num_warps=4,
    )  # fmt: skip
    return dq, dk, dv, parts.sum(0)


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bonus: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    return dq, dk, dv, bonus.new_empty(bonus.shape)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return grad, *_backward_op(grad, *ctx.saved_tensors, ctx.scale), None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit(do_not_specialize=["tokens", "heads"])
def bonus_kernel(
    o_ptr, q_ptr, k_ptr, v_ptr, bonus_ptr, y_ptr, tokens, heads, K, V, scale,
    o_r, q_r, k_r, v_r,
    BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    head, token = tl.program_id(1), tl.program_id(0) * BT + tl.arange(0, BT)[:, None]
    row = token.to(tl.int64) * heads + head
    channel, column = tl.arange(0, BK)[None, :], tl.arange(0, BV)[None, :]
    of_key, of_value = (token < tokens) & (channel < K), (token < tokens) & (column < V)
    q = tl.load(q_ptr + row * q_r + channel, mask=of_key, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + row * k_r + channel, mask=of_key, other=0.0).to(tl.float32)
    bonus = tl.load(bonus_ptr + head * K + channel, mask=channel < K, other=0.0) * scale
    share = tl.sum(q * bonus * k, 1)[:, None]
    o = tl.load(o_ptr + row * o_r + column, mask=of_value, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + row * v_r + column, mask=of_value, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * V + column, o + share * v, mask=of_value)


@triton.jit(do_not_specialize=["tokens", "heads"])
def bonus_pull_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, bonus_ptr, dq_ptr, dk_ptr, dv_ptr, parts_ptr,
    tokens, heads, K, V, scale, grad_r, q_r, k_r, v_r,
    BT: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """A program goes through many blocks of tokens and adds up its part of the bonus' gradient."""
    head = tl.program_id(1)
    channel, column = tl.arange(0, BK)[None, :], tl.arange(0, BV)[None, :]
    bonus = tl.load(bonus_ptr + head * K + channel, mask=channel < K, other=0.0) * scale
    dbonus = tl.zeros((BK,), dtype=tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(tokens, BT), tl.num_programs(0)):
        token = block * BT + tl.arange(0, BT)[:, None]
        row = token.to(tl.int64) * heads + head
        of_key, of_value = (token < tokens) & (channel < K), (token < tokens) & (column < V)
        q = tl.load(q_ptr + row * q_r + channel, mask=of_key, other=0.0).to(tl.float32)
        k = tl.load(k_ptr + row * k_r + channel, mask=of_key, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row * grad_r + column, mask=of_value, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + row * v_r + column, mask=of_value, other=0.0).to(tl.float32)
        share = tl.sum(q * bonus * k, 1)[:, None]
        tl.store(dv_ptr + row * V + column, share * grad, mask=of_value)
        dshare = tl.sum(grad * v, 1)[:, None]
        tl.store(dq_ptr + row * K + channel, dshare * bonus * k, mask=of_key)
        tl.store(dk_ptr + row * K + channel, dshare * bonus * q, mask=of_key)
        dbonus += tl.sum(dshare * q * k, 0)
    along = tl.arange(0, BK)
    at = parts_ptr + (tl.program_id(0) * heads + head) * K + along
    tl.store(at, dbonus * scale, mask=along < K)


def _sizes(v: Tensor, bonus: Tensor) -> tuple[int, int, int, tuple[int, int]]:
    """Tokens, heads, tokens of a tile, K and V."""
    (heads, K), V = bonus.shape, v.shape[1]
    block = max(_TILE // triton.next_power_of_2(max(K, V)), 1)
    return v.shape[0] // heads, heads, block, (K, V)


def _blocks(K: int, V: int) -> dict[str, int]:
    return {"BK": triton.next_power_of_2(K), "BV": triton.next_power_of_2(V)}
