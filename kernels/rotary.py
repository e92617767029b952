"""rotary: the two halves of each head rotated by the token's position (RoFormer, arXiv 2104.09864).

    y_i = x_i cos(a_i) - x_{i + K/2} sin(a_i)     y_{i + K/2} = x_{i + K/2} cos(a_i) + x_i sin(a_i)

with a_i = t base^(-2 i / K), so that a product of two heads knows the distance between them alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.rotary import angles, rotated
from .forms import Form, choose_form
from .naive.rotary import rotary_loop
from .precision import without_autocast, working_dtype


@without_autocast
def rotary(
    x: Tensor, position: Tensor, base: float = 10_000.0, *, form: Form | None = None
) -> Tensor:
    """Rotate the two halves of each head by its token's position.

    x: [B, T, H, K] with K even, for instance q and k side by side. position: one integer, the index
    of x's first token; keep it in the state and add T to it after the call.

    Returns x's shape and dtype; angles are computed in float32. ValueError for arguments that do
    not fit each other.
    """
    check = Arguments("rotary")
    check.tensor("x", x, "B T H K")
    check.placed("position", position)
    (_, T, _, K), dtype = x.shape, working_dtype(x)
    if K % 2:
        raise check.error(f"x has K = {K}; wanted an even head width")
    if position.numel() != 1 or position.is_floating_point():
        had = f"dtype {position.dtype} and shape {list(position.shape)}"
        raise check.error(f"position has {had}; wanted one integer")
    form = choose_form(form, fused_on=x.device if dtype == torch.float32 else None)
    angle = angles(position, T, K, base)
    if form == "triton":
        from .triton.rotary import rotary_fused  # needs a package that CPU-only machines may lack

        return rotary_fused(x, angle.cos(), angle.sin())
    if form == "naive":
        return rotary_loop(x.to(dtype), angle.to(dtype)).to(x.dtype)
    return rotated(x, angle.cos().to(x.dtype), angle.sin().to(x.dtype))
