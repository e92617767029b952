"""short_convolution: a causal convolution of each channel over its last few tokens.

    y_t = act(bias + sum_i weight_i x_{t - W + 1 + i})

(the token shift of H3, arXiv 2212.14052, and of Mamba, 2312.00752), and then y / |y| for the heads
that the delta rule wants of unit length (DeltaNet, 2406.06484).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.convolution import convolution_shifts, heads_of_unit_length
from .forms import Form, choose_form
from .naive.convolution import convolution_loop, unit_heads_formula
from .packing import Packing
from .precision import working_dtype

LARGEST_FUSED_WIDTH = 16  # of W in the Triton form, which holds W inputs in registers


def short_convolution(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
    initial_state: Tensor | None = None,
    normalise: int = 0,
    head_dim: int = 1,
    eps: float = 1e-6,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal, depthwise: each channel is its own convolution.

    x: [B, T, D]; weight: [D, W], the last column for a token itself; bias: [D];
    initial_state: the W - 1 inputs before x, [B, W - 1, D], zeros if None.
    normalise: so many of the first channels are heads of `head_dim`, each of which is divided by
    sqrt(|y|^2 + eps) after the activation (queries and keys packed before values).
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end; states have N rows.

    Returns y [B, T, D] and the last W - 1 inputs, both in x's dtype. ValueError for arguments that
    do not fit each other.
    """
    check = Arguments("short_convolution")
    check.tensor("x", x, "B T D")
    check.tensor("weight", weight, "D W")
    check.optional("bias", bias, "D")
    earlier = weight.shape[1] - 1
    check.fix("W-1", earlier, "weight")
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, x.device)
    check.optional("initial_state", initial_state, "B W-1 D")
    if activation not in (None, "silu"):
        raise check.error(f"activation is {activation!r}; wanted 'silu' or None")
    if not 0 <= normalise <= x.shape[2] or head_dim < 1 or normalise % head_dim:
        raise check.error(
            f"normalise is {normalise} and head_dim {head_dim}; "
            f"wanted whole heads of up to D = {x.shape[2]} channels"
        )
    if initial_state is None:
        initial_state = x.new_zeros(check.sizes["B"], earlier, x.shape[2])
    initial_state = initial_state.to(x.dtype)
    if packing is not None:
        y, _ = packing.in_rows(
            short_convolution,
            {"x": x},
            initial_state=initial_state,
            weight=weight,
            bias=bias,
            activation=activation,
            normalise=normalise,
            head_dim=head_dim,
            eps=eps,
            form=form,
        )
        return y, packing.last_inputs(initial_state, x)
    state = _last_inputs(initial_state, x)
    dtype = working_dtype(x, weight)
    fuses = dtype == torch.float32 and earlier < LARGEST_FUSED_WIDTH
    form = choose_form(form, x.shape[1], fused_on=x.device if fuses else None)
    if form == "triton":
        return _fused(x, weight, bias, initial_state, activation, normalise, head_dim, eps), state
    seen = torch.cat((initial_state, x), dim=1)
    bias = None if bias is None else bias.to(dtype)
    run = convolution_loop if form == "naive" else convolution_shifts
    y = run(seen.to(dtype), weight.to(dtype), bias, activation)
    if normalise:
        scale_heads = unit_heads_formula if form == "naive" else heads_of_unit_length
        y = scale_heads(y, normalise, head_dim, eps)
    return y.to(x.dtype), state


def _fused(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor,
    activation: str | None,
    normalise: int,
    head_dim: int,
    eps: float,
) -> Tensor:
    """Heads whose width is no power of two, or too wide, get their length in torch."""
    from .triton.convolution import convolution_tiles, has_fused_heads  # not on every CPU machine

    if not normalise:
        return convolution_tiles(x, weight, bias, initial_state, activation)
    if has_fused_heads(head_dim):
        heads = normalise, head_dim, eps
        return convolution_tiles(x, weight, bias, initial_state, activation, *heads)
    y = convolution_tiles(x, weight, bias, initial_state, activation)
    return heads_of_unit_length(y.float(), normalise, head_dim, eps).to(y.dtype)


def _last_inputs(initial_state: Tensor, x: Tensor) -> Tensor:
    """As many as the state holds, in storage of their own."""
    length, earlier = x.shape[1], initial_state.shape[1]
    if length >= earlier:
        return x[:, length - earlier :].clone()
    return torch.cat((initial_state[:, length:], x), dim=1)
