"""short_convolution's Triton form: a kernel forward, and one for all of its gradients."""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
import triton
from torch import Tensor

from . import configs
from .configs import Walk
from .convolution_walk import convolve_kernel, convolve_pull_kernel
from .operators import operator

LARGEST_HEAD = 256  # of unit length


def convolution_tiles(
    x: Tensor,  # [B, T, D]
    weight: Tensor,  # [D, W]
    bias: Tensor | None,  # [D]
    initial_state: Tensor,  # [B, W - 1, D]
    activation: str | None,
    unit_channels: int = 0,
    head_dim: int = 0,
    eps: float = 0.0,
) -> Tensor:
    """x's shape and dtype. Heads of unit length are of a width for which `has_fused_heads`."""
    y: Tensor = _forward_op(
        x, weight, bias, initial_state, activation == "silu", unit_channels, head_dim, eps
    )
    return y


def has_fused_heads(head_dim: int) -> bool:
    return head_dim <= LARGEST_HEAD and head_dim == triton.next_power_of_2(head_dim)


@operator("convolution_forward")
def _forward_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
    unit_channels: int,
    head_dim: int,
    eps: float,
) -> Tensor:
    x, weight, start = _adjacent(x), weight.contiguous(), initial_state.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (B, T, D), W, unit = x.shape, weight.shape[1], _unit(x)
    tile = configs.convolution(head_dim)
    run, programs = _runs(x, tile)
    convolve_kernel[(programs * triton.cdiv(D, tile.channels),)](
        x, weight, weight if bias is None else bias.contiguous(), start, y,
        B, T, D, run, unit_channels, eps, x.stride(0) // unit, x.stride(1) // unit,
        W=W, RUNS=tile.runs, BD=tile.channels, STEP=tile.step, UNIT=unit, HEAD=head_dim,
        BIASED=bias is not None, SILU=silu, num_warps=tile.num_warps,
    )  # fmt: skip
    return y


@_forward_op.register_fake
def _forward_shape(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
    unit_channels: int,
    head_dim: int,
    eps: float,
) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@operator("convolution_backward")
def _backward_op(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
    unit_channels: int,
    head_dim: int,
    eps: float,
) -> list[Tensor]:
    """Gradients of x, weight, bias (empty if there is none) and the initial state."""
    x, grad, start = _adjacent(x), grad.contiguous(), initial_state.contiguous()
    weight = weight.contiguous()
    (B, T, D), W, unit = x.shape, weight.shape[1], _unit(x)
    tile = configs.convolution(head_dim)
    run, programs = _runs(x, tile)
    dx, dstart = torch.empty((B, T, D), dtype=x.dtype, device=x.device), torch.empty_like(start)
    rows = W if bias is None else W + 1
    parts = torch.empty((programs, rows, D), dtype=torch.float32, device=x.device)
    convolve_pull_kernel[(programs * triton.cdiv(D, tile.channels),)](
        grad, x, weight, weight if bias is None else bias.contiguous(), start, dx, dstart, parts,
        B, T, D, run, unit_channels, eps, x.stride(0) // unit, x.stride(1) // unit,
        W=W, RUNS=tile.runs, BD=tile.channels, STEP=tile.step, UNIT=unit, HEAD=head_dim,
        BIASED=bias is not None, SILU=silu, num_warps=tile.num_warps,
    )  # fmt: skip
    parts = parts.sum(0)
    dbias = parts.new_empty(0) if bias is None else parts[W].to(bias.dtype, copy=True)
    return [dx, parts[:W].T.to(weight.dtype).contiguous(), dbias, dstart]


@_backward_op.register_fake
def _backward_shapes(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    silu: bool,
    unit_channels: int,
    head_dim: int,
    eps: float,
) -> list[Tensor]:
    return [
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        weight.new_empty(weight.shape),
        x.new_empty(0, dtype=torch.float32) if bias is None else bias.new_empty(bias.shape),
        initial_state.new_empty(initial_state.shape),
    ]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, initial_state, *ctx.options = inputs
    ctx.save_for_backward(x, weight, bias, initial_state)


def _pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial_state = ctx.saved_tensors
    dx, dweight, dbias, dstart = _backward_op(grad, x, weight, bias, initial_state, *ctx.options)
    return dx, dweight, None if bias is None else dbias, dstart, *[None] * len(ctx.options)


_forward_op.register_autograd(_pull, setup_context=_keep_for_backward)


def _runs(x: Tensor, tile: Walk) -> tuple[int, int]:
    """Tokens of a run, and the programs that all runs need for a block of channels."""
    B, T, D = x.shape
    run = tile.longest_run
    while True:
        programs = triton.cdiv(B * triton.cdiv(T, run), tile.runs)
        enough = programs * triton.cdiv(D, tile.channels) >= configs.ENOUGH_WALKS
        if enough or run == configs.SHORTEST_RUN:
            return run, programs
        run //= 2


def _unit(x: Tensor) -> int:
    """How many elements all strides are a multiple of, as far as it helps: what is asked for at
    once is no wider.
    """
    common = gcd(8, x.stride(0), x.stride(1))
    return 2 if common == 4 else common  # so that there are fewer kernels to compile


def _adjacent(x: Tensor) -> Tensor:
    """x, or a copy where a token's channels are apart."""
    return x if x.stride(-1) == 1 else x.contiguous()
