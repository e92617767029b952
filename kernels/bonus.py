"""add_bonus: what a token reads of its own key and value, through a weight for each channel.

    y_t = o_t + scale (q_t . u k_t) v_t

RWKV reads a token before it is stored, through a bonus u (arXiv 2404.05892), or once more beside
what was stored (2503.14456).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.bonus import with_own_reading
from .forms import Form, choose_form
from .naive.bonus import bonus_formula
from .precision import without_autocast, working_dtype

LARGEST_FUSED_DIM = 256  # of K and V in the Triton form, which holds rows in registers


@without_autocast
def add_bonus(
    o: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bonus: Tensor,
    *,
    scale: float = 1.0,
    form: Form | None = None,
) -> Tensor:
    """o + scale * sum(q * bonus * k) * v, computed in at least float32.

    o, v: [B, T, H, V]; q, k: [B, T, H, K]; bonus: [H, K].

    Returns [B, T, H, V] in o's dtype. ValueError for arguments that do not fit each other.
    """
    check = Arguments("add_bonus")
    check.tensor("o", o, "B T H V")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T H V")
    check.tensor("bonus", bonus, "H K")
    dtype = working_dtype(o, q, k, v, bonus)
    fuses = dtype == torch.float32 and max(q.shape[-1], v.shape[-1]) <= LARGEST_FUSED_DIM
    form = choose_form(form, fused_on=o.device if fuses else None)
    bonus = bonus.to(dtype)
    if form == "triton":
        from .triton.bonus import bonus_fused  # needs a package that CPU-only machines may lack

        return bonus_fused(o, q, k, v, bonus, scale)
    run = bonus_formula if form == "naive" else with_own_reading
    y = run(o.to(dtype), q.to(dtype), k.to(dtype), v.to(dtype), bonus, scale)
    return y.to(o.dtype)
