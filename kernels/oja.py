"""chunk_oja: the delta rule's mirror image, which erases on the value side (Oja's rule).

S_t = S_{t-1} diag(exp(g_t)) (I - b_t v_t v_t^T) + b_t k_t v_t^T,    o_t = S_t^T q_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.delta import oja_chunks
from .decay import fused_is_best, per_token
from .delta import fused_device
from .forms import Form, choose_form
from .naive.delta import oja_loop
from .packing import Packing
from .precision import without_autocast, working_dtype


@without_autocast
def chunk_oja(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace what the state holds under a value by a new key; normalise v.

    q, k: [B, T, H, K]; v: [B, T, H, V]; beta: [B, T, H] in 0 to 2.
    log_decay: [H], [B, T, H] or, one for each value channel, [B, T, H, V].
    form: Triton's is taken where it is asked for, not by itself on a GPU.
    Otherwise as `chunk_delta` with one step a token.
    """
    packing = _check(q, k, v, beta, log_decay, initial_state, cu_seqlens)
    if packing is not None:
        return packing.in_rows(
            chunk_oja,
            {"q": q, "k": k, "v": v, "beta": beta, "log_decay": per_token(log_decay, q)},
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
    dtype, out_dtype = working_dtype(q, k, v, initial_state), v.dtype
    form = choose_form(
        form,
        q.shape[1],
        fused_on=fused_device("chunk_oja", form, q, v, dtype),
        fused_is_best=fused_is_best(v),
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    beta = beta.to(dtype)
    log_decay = None if log_decay is None else per_token(log_decay.to(dtype), q)
    start = None if initial_state is None else initial_state.to(dtype)
    if form == "triton" and v.dtype == torch.bfloat16:
        dtype = torch.bfloat16  # as the output's, which is all that products are rounded for
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if form == "triton":
        from .triton.oja import oja_fused  # needs a package that CPU-only machines may lack

        o, state = oja_fused(q, k, v, beta, log_decay, start, scale)
    else:
        run = oja_loop if form == "naive" else oja_chunks
        o, state = run(q, k, v, beta, log_decay, start, scale)
    return o.to(out_dtype), state


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    check = Arguments("chunk_oja")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T H V")
    check.tensor("beta", beta, "B T H")
    check.one_of("log_decay", log_decay, ("H", "B T H", "B T H V"))
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, q.device)
    check.optional("initial_state", initial_state, "B H K V")
    check.log_decay_values("log_decay", log_decay)
    check.strength_values("beta", beta)
    return packing
