"""scaled_heads: heads times a number for each of them and token, as keys times their step size.

    y_t,h = s_t,h x_t,g    g = h // (HV / H)

Mamba-2 (arXiv 2405.21060) writes one key, shared by all heads, at each head's own step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.strength import heads_times_strengths
from .forms import Form, choose_form
from .naive.strength import strength_formula
from .precision import without_autocast, working_dtype

LARGEST_FUSED_DIM = 256  # of K in the Triton form, which holds heads in registers


@without_autocast
def scaled_heads(x: Tensor, strength: Tensor, *, form: Form | None = None) -> Tensor:
    """x: [B, T, H, K]; strength: [B, T, HV], HV a multiple of H (head h reads x's h // (HV / H)).

    Returns [B, T, HV, K] in x's dtype. ValueError for arguments that do not fit each other.
    """
    check = Arguments("scaled_heads")
    check.tensor("x", x, "B T H K")
    check.tensor("strength", strength, "B T HV")
    check.multiple("strength", "HV", "H", "x")
    dtype = working_dtype(x, strength)
    fuses = dtype == torch.float32 and x.shape[-1] <= LARGEST_FUSED_DIM
    form = choose_form(form, fused_on=x.device if fuses else None)
    if form == "triton":
        from .triton.strength import scaled_heads_fused  # not on every CPU machine

        return scaled_heads_fused(x, strength)
    if form == "naive":
        return strength_formula(x.to(dtype), strength.to(dtype)).to(x.dtype)
    return heads_times_strengths(x, strength.to(x.dtype))
