"""gated_product and swiglu: x * act(gate), of two tensors or of the halves of one.

The gate of gated linear units (arXiv 2002.05202) and of most mixers' outputs, to which state space
models add their input once more before the gate (Mamba-2, 2405.21060).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.gating import product_of_tensors
from .forms import Form, choose_form
from .naive.gating import product_formula
from .pointwise import along
from .precision import without_autocast, working_dtype

_ACTIVATIONS = ("silu", "sigmoid")


@without_autocast
def gated_product(
    x: Tensor,
    gate: Tensor,
    *,
    activation: Literal["silu", "sigmoid"] = "silu",
    skip: Tensor | None = None,
    skip_rate: Tensor | None = None,
    form: Form | None = None,
) -> Tensor:
    """(x + skip_rate * skip) * activation(gate), in Triton's form computed in float32.

    x, gate, skip: [..., D], for instance slices of one projection. skip_rate: of x's last axes, or
    broadcast to them ([H, 1] to [B, T, H, V], say); with a skip alone, and never without.

    Returns x's shape and dtype. ValueError for arguments that do not fit each other.
    """
    check = Arguments("gated_product")
    check.placed("x", x)
    axes = " ".join([f"axis{i}" for i in range(x.dim() - 1)] + ["D"])
    check.tensor("x", x, axes)
    check.tensor("gate", gate, axes)
    check.optional("skip", skip, axes)
    if (skip is None) != (skip_rate is None):
        raise check.error(
            f"skip is {_given(skip)} and skip_rate {_given(skip_rate)}; wanted both or neither"
        )
    rate = along(check, "skip_rate", skip_rate, x)
    if activation not in _ACTIVATIONS:
        raise check.error(f"activation is {activation!r}; wanted one of {', '.join(_ACTIVATIONS)}")
    dtype = working_dtype(x, gate, skip, rate)
    form = choose_form(form, fused_on=x.device if dtype == torch.float32 else None)
    if form == "triton":
        from .triton.gating import product_fused  # needs a package CPU-only machines may lack
        from .triton.skip_product import skip_product_fused

        if skip is None or rate is None:
            return product_fused(x, gate, activation)
        return skip_product_fused(x, gate, skip, rate, activation)
    if form == "naive":
        skip, rate = (None if t is None else t.to(dtype) for t in (skip, rate))
        return product_formula(x.to(dtype), gate.to(dtype), skip, rate, activation).to(x.dtype)
    return product_of_tensors(x, gate, skip, rate, activation).to(x.dtype)


def _given(x: Tensor | None) -> str:
    return "not given" if x is None else "given"


def swiglu(gate_up: Tensor, *, form: Form | None = None) -> Tensor:
    """silu(gate) * up of a projection [..., 2 D] that holds first the gate, then up.

    The gradient of Triton's form is written as one tensor, where `gated_product` of the halves
    would put two together.

    Returns [..., D] in gate_up's dtype. ValueError for an odd width.
    """
    check = Arguments("swiglu")
    check.placed("gate_up", gate_up)
    check.tensor("gate_up", gate_up, " ".join(f"axis{i}" for i in range(gate_up.dim())))
    if gate_up.dim() == 0 or gate_up.shape[-1] % 2:
        raise check.error(f"gate_up has shape {list(gate_up.shape)}; wanted an even last axis")
    fuses = working_dtype(gate_up) == torch.float32
    form = choose_form(form, fused_on=gate_up.device if fuses else None)
    if form == "triton":
        from .triton.gating import swiglu_fused  # needs a package CPU-only machines may lack

        return swiglu_fused(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return gated_product(up, gate, form=form)
