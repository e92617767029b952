"""short_convolution: a causal convolution of each channel over its last few tokens.

    y_t = act(bias + sum_i weight_i x_{t - W + 1 + i})

(the token shift of H3, arXiv 2212.14052, and of Mamba, 2312.00752.)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.convolution import convolution_shifts
from .forms import Form, choose_form
from .naive.convolution import convolution_loop
from .packing import Packing
from .precision import working_dtype


def short_convolution(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal, depthwise: each channel is its own convolution.

    x: [B, T, D]; weight: [D, W], the last column for a token itself; bias: [D];
    initial_state: the W - 1 inputs before x, [B, W - 1, D], zeros if None.
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
    if initial_state is None:
        initial_state = x.new_zeros(check.sizes["B"], earlier, x.shape[2])
    initial_state = initial_state.to(x.dtype)
    if packing is not None:
        x = packing.unpack(x)
        y, _ = short_convolution(
            x, weight, bias=bias, activation=activation, initial_state=initial_state, form=form
        )
        return packing.pack(y), packing.last(torch.cat((initial_state, x), dim=1), earlier)
    state = _last_inputs(initial_state, x)
    dtype = working_dtype(x, weight)
    fused_on = x.device if dtype == torch.float32 else None
    form = choose_form(form, x.shape[1], fused_on=fused_on)
    if form == "triton":
        from .triton.convolution import convolution_tiles  # not on every CPU-only machine

        return convolution_tiles(x, weight, bias, initial_state, activation), state
    seen = torch.cat((initial_state, x), dim=1)
    bias = None if bias is None else bias.to(dtype)
    run = convolution_loop if form == "naive" else convolution_shifts
    y = run(seen.to(dtype), weight.to(dtype), bias, activation)
    return y.to(x.dtype), state


def _last_inputs(initial_state: Tensor, x: Tensor) -> Tensor:
    """As many as the state holds, in storage of their own."""
    length, earlier = x.shape[1], initial_state.shape[1]
    if length >= earlier:
        return x[:, length - earlier :].clone()
    return torch.cat((initial_state[:, length:], x), dim=1)
