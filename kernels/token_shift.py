"""token_shift: each channel of a token blended with the same channel of the token before it.

    y_i,t = x_t + (x_{t-1} - x_t) * (shares_i + offsets_i,t)

Several blends of one sequence in one pass: RWKV's token shift, with shares that are learned as in
RWKV-7 (arXiv 2503.14456) or that each token moves as in RWKV-6 (2404.05892).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.token_shift import token_shift_of_rows
from .forms import Form, choose_form
from .naive.token_shift import token_shift_loop
from .precision import without_autocast, working_dtype

MOST_FUSED_BLENDS = 8  # of n in the Triton form, whose loop over them is written out


@without_autocast
def token_shift(
    x: Tensor,
    shares: Tensor,
    *,
    offsets: Tensor | None = None,
    initial_state: Tensor | None = None,
    form: Form | None = None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """n blends of x with x one token earlier.

    x: [B, T, D]; shares: of the token before, [n, D]; offsets: added to them for each token,
    [n, B, T, D]; initial_state: the token before x, [B, 1, D], zeros if None.

    Returns the n blends, each [B, T, D], and the last token [B, 1, D], all in x's dtype.
    ValueError for arguments that do not fit each other.
    """
    check = Arguments("token_shift")
    check.tensor("x", x, "B T D")
    check.tensor("shares", shares, "n D")
    check.optional("offsets", offsets, "n B T D")
    check.fix("1", 1, "one token")
    check.optional("initial_state", initial_state, "B 1 D")
    dtype = working_dtype(x, shares, offsets)
    fuses = dtype == torch.float32 and shares.shape[0] <= MOST_FUSED_BLENDS
    form = choose_form(form, x.shape[1], fused_on=x.device if fuses else None)
    if initial_state is not None:
        initial_state = initial_state.to(x.dtype)
    state = x[:, -1:].clone()
    shares = shares.to(dtype)
    if form == "triton":
        from .triton.token_shift import token_shift_fused  # not on every CPU machine

        return token_shift_fused(x, shares, offsets, initial_state), state
    before = x.new_zeros(x.shape[0], 1, x.shape[2]) if initial_state is None else initial_state
    shares = shares[:, None, None]  # [n, B, T, D]
    shares = shares if offsets is None else shares + offsets
    if form == "naive":
        return tuple(token_shift_loop(x.to(dtype), shares, before).to(x.dtype)), state
    return token_shift_of_rows(x, shares.to(x.dtype), before), state
