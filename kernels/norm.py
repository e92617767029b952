"""rms_norm: x / sqrt(mean(x^2) + eps) * weight * act(gate) over the last axis.

RMSNorm (arXiv 1910.07467), with the output gate of RetNet (2307.08621) and Mamba-2 (2405.21060).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.norm import norm_fused
from .forms import Form, choose_form
from .naive.norm import norm_formula
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
    form: Form | None = None,
) -> Tensor:
    """Divide x by its root mean square, computed in at least float32.

    x: [..., D]; weight: [D]; gate: x's shape, or None for no gate.

    Returns x's shape and dtype. ValueError for arguments that do not fit each other.
    """
    check = Arguments("rms_norm")
    check.placed("x", x)
    axes = " ".join([f"axis{i}" for i in range(x.dim() - 1)] + ["D"])
    check.tensor("x", x, axes)
    check.tensor("weight", weight, "D")
    check.optional("gate", gate, axes)
    if activation not in _ACTIVATIONS:
        raise check.error(f"activation is {activation!r}; wanted one of {', '.join(_ACTIVATIONS)}")
    dtype = working_dtype(x, weight)
    fuses = dtype == torch.float32 and x.shape[-1] <= LARGEST_FUSED_WIDTH
    form = choose_form(form, fused_on=x.device if fuses else None)
    if form == "triton":
        from .triton.norm import norm_fused_rows  # needs a package CPU-only machines may lack

        return norm_fused_rows(x, weight, gate, activation, eps)
    run = norm_formula if form == "naive" else norm_fused
    gate = None if gate is None else gate.to(dtype)
    return run(x.to(dtype), weight.to(dtype), gate, activation, eps).to(x.dtype)
