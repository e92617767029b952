"""rms_norm: x / sqrt(mean(x^2) + eps) * weight * act(gate) over the last axis.

RMSNorm (arXiv 1910.07467), with the output gate of RetNet (2307.08621) and Mamba-2 (2405.21060).
add_rms_norm is a pre-norm block's step: it adds to the residual stream and normalises the sum.
l2_norm gives keys and queries unit length, as the delta rule wants them (2406.06484).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.norm import norm_fused, of_unit_length
from .forms import Form, choose_form
from .naive.norm import l2_formula, norm_formula
from .precision import working_dtype

_ACTIVATIONS = ("silu", "sigmoid")
LARGEST_FUSED_WIDTH = 16384  # of D in the Triton form


def rms_norm(
    x: Tensor,
    weight: Tensor,
    *,
    gate: Tensor | None = None,
    activation: Literal["silu", "sigmoid"] = "silu",
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
    form: Form | None = None,
) -> Tensor:
    """Divide x by its root mean square, computed in at least float32.

    x: [..., D]; weight: [D]; gate: x's shape, or None for no gate.

    Returns x's shape in out_dtype (None: x's). ValueError for arguments that do not fit each other.
    """
    check = Arguments("rms_norm")
    axes = _check_rows(check, x, weight, out_dtype)
    check.optional("gate", gate, axes)
    if activation not in _ACTIVATIONS:
        raise check.error(f"activation is {activation!r}; wanted one of {', '.join(_ACTIVATIONS)}")
    dtype = working_dtype(x, weight)
    fuses = dtype == torch.float32 and x.shape[-1] <= LARGEST_FUSED_WIDTH
    form = choose_form(form, fused_on=x.device if fuses else None)
    if form == "triton":
        from .triton.norm import norm_fused_rows  # needs a package CPU-only machines may lack

        return norm_fused_rows(x, weight, gate, activation, eps, out_dtype or x.dtype)
    run = norm_formula if form == "naive" else norm_fused
    gate = None if gate is None else gate.to(dtype)
    y = run(x.to(dtype), weight.to(dtype), gate, activation, eps)
    return y.to(out_dtype or x.dtype)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    *,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """The sum s = residual + x, and its norm as `rms_norm` has it.

    x, residual: [..., D]; weight: [D].

    Returns the norm in out_dtype (None: s's), and s in the wider of x's and residual's dtypes.
    ValueError for arguments that do not fit each other.
    """
    check = Arguments("add_rms_norm")
    axes = _check_rows(check, x, weight, out_dtype)
    check.tensor("residual", residual, axes)
    fuses = working_dtype(x, residual, weight) == torch.float32
    fuses = fuses and x.shape[-1] <= LARGEST_FUSED_WIDTH
    form = choose_form(form, fused_on=x.device if fuses else None)
    if form == "triton":
        from .triton.residual_norm import add_norm_fused  # needs a package some machines lack

        return add_norm_fused(x, residual, weight, eps, out_dtype)
    total = residual + x
    return rms_norm(total, weight, eps=eps, out_dtype=out_dtype, form=form), total


def l2_norm(
    x: Tensor, *, eps: float = 1e-6, out_dtype: torch.dtype | None = None, form: Form | None = None
) -> Tensor:
    """x / sqrt(|x|^2 + eps), computed in at least float32; a zero vector stays zero.

    x: [..., D]. Returns x's shape in out_dtype (None: x's).
    """
    check = Arguments("l2_norm")
    check.placed("x", x)
    check.tensor("x", x, " ".join([f"axis{i}" for i in range(x.dim() - 1)] + ["D"]))
    _check_dtype(check, out_dtype)
    dtype, width = working_dtype(x), x.shape[-1]
    fuses = dtype == torch.float32 and width <= LARGEST_FUSED_WIDTH
    form = choose_form(form, fused_on=x.device if fuses else None)
    if form == "triton":  # the root mean square's, of which D are a square
        weight = torch.full((width,), width**-0.5, device=x.device)
        return rms_norm(x, weight, eps=eps / width, out_dtype=out_dtype, form=form)
    run = l2_formula if form == "naive" else of_unit_length
    return run(x.to(dtype), eps).to(out_dtype or x.dtype)


def _check_rows(check: Arguments, x: Tensor, weight: Tensor, out_dtype: torch.dtype | None) -> str:
    """x's axes, for tensors of its shape."""
    check.placed("x", x)
    axes = " ".join([f"axis{i}" for i in range(x.dim() - 1)] + ["D"])
    check.tensor("x", x, axes)
    check.tensor("weight", weight, "D")
    _check_dtype(check, out_dtype)
    return axes


def _check_dtype(check: Arguments, out_dtype: torch.dtype | None) -> None:
    if out_dtype is not None and not out_dtype.is_floating_point:
        raise check.error(f"out_dtype is {out_dtype}; wanted a floating dtype, or None")
