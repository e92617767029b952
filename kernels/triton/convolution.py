"""short_convolution's Triton form: kernels over [tokens, channels] tiles, which read W - 1 before.

The backward pass first makes the gradient before the activation and the parts of the weight's, then
the input's: a convolution in the other direction.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TOKENS, _CHANNELS = 32, 128  # a tile
_TILES = 8  # that a program of the first backward kernel goes through


def convolution_tiles(
    x: Tensor,  # [B, T, D]
    weight: Tensor,  # [D, W]
    bias: Tensor | None,  # [D]
    initial_state: Tensor,  # [B, W - 1, D]
    activation: str | None,
) -> Tensor:
    """x's shape and dtype."""
    y: Tensor = _forward_op(x, weight, bias, initial_state, activation == "silu")
    return y


@torch.library.custom_op("linearch::convolution_forward", mutates_args=())
def _forward_op(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor, silu: bool
) -> Tensor:
    x, weight, start = _adjacent(x), weight.contiguous(), initial_state.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    B, T, D = x.shape
    grid = (B * triton.cdiv(T, _TOKENS) * triton.cdiv(D, _CHANNELS),)
    convolve_kernel[grid](
        x, weight, weight if bias is None else bias.contiguous(), start, y,
        T, D, x.stride(0), x.stride(1),
        W=weight.shape[1], BT=_TOKENS, BD=_CHANNELS, BIASED=bias is not None, SILU=silu,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor, silu: bool
) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("linearch::convolution_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
) -> list[Tensor]:
    """Gradients of x, weight, bias (empty if there is none) and the initial state."""
    x, grad, start = _adjacent(x), grad.contiguous(), initial_state.contiguous()
    weight = weight.contiguous()
    (B, T, D), W = x.shape, weight.shape[1]
    blocks = triton.cdiv(T, _TOKENS * _TILES)
    columns = triton.next_power_of_2(W + 1)  # of the weight, and the bias' after them
    parts = torch.empty((B * blocks, D, columns), dtype=torch.float32, device=x.device)
    before = torch.empty((B, T, D), dtype=x.dtype, device=x.device)
    convolve_pull_kernel[(B * blocks * triton.cdiv(D, _CHANNELS),)](
        grad, x, weight, weight if bias is None else bias.contiguous(), start, before, parts,
        T, D, x.stride(0), x.stride(1),
        W=W, BT=_TOKENS, BD=_CHANNELS, TILES=_TILES, BW=columns, BIASED=bias is not None,
        SILU=silu,
    )  # fmt: skip
    dx, dstart = torch.empty((B, T, D), dtype=x.dtype, device=x.device), torch.empty_like(start)
    convolve_back_kernel[(B * triton.cdiv(T + W - 1, _TOKENS) * triton.cdiv(D, _CHANNELS),)](
        before, weight, dx, dstart, T, D, W=W, BT=_TOKENS, BD=_CHANNELS
    )
    parts = parts.sum(0)
    dbias = parts.new_empty(0) if bias is None else parts[:, W].to(bias.dtype)
    return [dx, parts[:, :W].to(weight.dtype).contiguous(), dbias, dstart]


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
) -> list[Tensor]:
    return [
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        weight.new_empty(weight.shape),
        x.new_empty(0, dtype=torch.float32) if bias is None else bias.new_empty(bias.shape),
        initial_state.new_empty(initial_state.shape),
    ]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, initial_state, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias, initial_state)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial_state = ctx.saved_tensors
    dx, dweight, dbias, dstart = _backward_op(grad, x, weight, bias, initial_state, ctx.silu)
    return dx, dweight, None if bias is None else dbias, dstart, None


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


@triton.jit
def _tap(x_ptr, start_ptr, tokens, channels, T, D, x_t, W: tl.constexpr):
    """Inputs [tokens, channels]; those before the first are the state's last; 0 outside."""
    inside = channels[None, :] < D
    x = tl.load(
        x_ptr + tokens[:, None].to(tl.int64) * x_t + channels[None, :],
        mask=(tokens[:, None] >= 0) & (tokens[:, None] < T) & inside,
        other=0.0,
    ).to(tl.float32)
    earlier = (tokens[:, None] < 0) & (tokens[:, None] >= 1 - W)
    at = start_ptr + (tokens[:, None] + (W - 1)) * D + channels[None, :]
    return x + tl.load(at, mask=earlier & inside, other=0.0).to(tl.float32)


@triton.jit
def _sums(
    x_ptr, weight_ptr, bias_ptr, start_ptr, tokens, channels, T, D, x_t,
    W: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Before the activation, [tokens, channels]."""
    inside = channels < D
    y = tl.zeros((tokens.shape[0], channels.shape[0]), dtype=tl.float32)
    for i in tl.static_range(W):
        tap = tl.load(weight_ptr + channels * W + i, mask=inside, other=0.0).to(tl.float32)
        shifted = _tap(x_ptr, start_ptr, tokens - (W - 1 - i), channels, T, D, x_t, W)
        y += shifted * tap[None, :]
    if BIASED:
        y += tl.load(bias_ptr + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit(do_not_specialize=["T"])
def convolve_kernel(
    x_ptr, weight_ptr, bias_ptr, start_ptr, y_ptr, T, D, x_b, x_t,
    W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    blocks_d = tl.cdiv(D, BD)
    blocks_t = tl.cdiv(T, BT)
    channels = (pid % blocks_d) * BD + tl.arange(0, BD)
    tokens = ((pid // blocks_d) % blocks_t) * BT + tl.arange(0, BT)
    b = (pid // (blocks_d * blocks_t)).to(tl.int64)
    y = _sums(
        x_ptr + b * x_b, weight_ptr, bias_ptr, start_ptr + b * (W - 1) * D,
        tokens, channels, T, D, x_t, W, BIASED,
    )  # fmt: skip
    if SILU:
        y *= tl.sigmoid(y)
    at = y_ptr + (b * T + tokens[:, None]) * D + channels[None, :]
    tl.store(at, y, mask=(tokens[:, None] < T) & (channels[None, :] < D))


@triton.jit(do_not_specialize=["T"])
def convolve_pull_kernel(
    grad_ptr, x_ptr, weight_ptr, bias_ptr, start_ptr, before_ptr, parts_ptr, T, D, x_b, x_t,
    W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr, TILES: tl.constexpr, BW: tl.constexpr,
    BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """The gradient before the activation; the weight's, and the bias' behind it, in parts."""
    pid = tl.program_id(0)
    blocks_d = tl.cdiv(D, BD)
    blocks_t = tl.cdiv(T, BT * TILES)
    channels = (pid % blocks_d) * BD + tl.arange(0, BD)
    block = (pid // blocks_d).to(tl.int64)  # of [B, blocks_t]
    b = block // blocks_t
    taps = tl.arange(0, BW)
    part = tl.zeros((BD, BW), dtype=tl.float32)
    for i in range(TILES):
        tokens = ((block % blocks_t).to(tl.int32) * TILES + i) * BT + tl.arange(0, BT)
        mask = (tokens[:, None] < T) & (channels[None, :] < D)
        flat = (b * T + tokens[:, None]) * D + channels[None, :]
        grad = tl.load(grad_ptr + flat, mask=mask, other=0.0).to(tl.float32)
        if SILU:
            y = _sums(
                x_ptr + b * x_b, weight_ptr, bias_ptr, start_ptr + b * (W - 1) * D,
                tokens, channels, T, D, x_t, W, BIASED,
            )  # fmt: skip
            opened = tl.sigmoid(y)
            grad *= opened * (1.0 + y * (1.0 - opened))
        tl.store(before_ptr + flat, grad, mask=mask)
        for j in tl.static_range(W):
            earlier = tokens - (W - 1 - j)
            x = _tap(x_ptr + b * x_b, start_ptr + b * (W - 1) * D, earlier, channels, T, D, x_t, W)
            part += tl.where(taps[None, :] == j, tl.sum(grad * x, 0)[:, None], 0.0)
        part += tl.where(taps[None, :] == W, tl.sum(grad, 0)[:, None], 0.0)
    at = parts_ptr + (block * D + channels[:, None]) * BW + taps[None, :]
    tl.store(at, part, mask=channels[:, None] < D)


@triton.jit(do_not_specialize=["T"])
def convolve_back_kernel(
    before_ptr, weight_ptr, dx_ptr, dstart_ptr, T, D,
    W: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradients of x and, for tokens before the first, of the initial state."""
    pid = tl.program_id(0)
    blocks_d = tl.cdiv(D, BD)
    blocks_t = tl.cdiv(T + W - 1, BT)
    channels = (pid % blocks_d) * BD + tl.arange(0, BD)
    tokens = ((pid // blocks_d) % blocks_t) * BT + tl.arange(0, BT) - (W - 1)
    b = (pid // (blocks_d * blocks_t)).to(tl.int64)
    inside = channels[None, :] < D
    dx = tl.zeros((BT, BD), dtype=tl.float32)
    for i in tl.static_range(W):
        later = tokens + (W - 1 - i)
        tap = tl.load(weight_ptr + channels * W + i, mask=channels < D, other=0.0).to(tl.float32)
        at = before_ptr + (b * T + later[:, None]) * D + channels[None, :]
        mask = (later[:, None] >= 0) & (later[:, None] < T) & inside
        dx += tl.load(at, mask=mask, other=0.0).to(tl.float32) * tap[None, :]
    at = dx_ptr + (b * T + tokens[:, None]) * D + channels[None, :]
    tl.store(at, dx, mask=(tokens[:, None] >= 0) & (tokens[:, None] < T) & inside)
    at = dstart_ptr + (b * (W - 1) + tokens[:, None] + (W - 1)) * D + channels[None, :]
    tl.store(at, dx, mask=(tokens[:, None] < 0) & inside)


def _adjacent(x: Tensor) -> Tensor:
    """x, or a copy where a token's channels are apart."""
    return x if x.stride(-1) == 1 else x.contiguous()
