"""chunk_dplr: a state whose transition is diagonal plus low rank, with two writes a token.

    c_t = S_{t-1}^T a_t
    S_t = diag(exp(g_t)) S_{t-1} + b_t c_t^T + k_t v_t^T,    o_t = S_t^T q_t

RWKV-7 (arXiv 2503.14456, section 4.1) with a the key that is removed, at length one, and b minus
the rate times it. The read is of the state before the decay: of the decayed one it would have the
key exp(-g) a, which overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.dplr import dplr_chunks
from .decay import fused_is_best, per_token
from .delta import fused_device
from .forms import Form, choose_form
from .naive.dplr import dplr_loop
from .packing import Packing
from .precision import without_autocast, working_dtype


@without_autocast
def chunk_dplr(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Write v under k and, under b, what the state before held under a.

    q, k, a, b: [B, T, H, K]; v: [B, T, H, V]. The state grows without bound where
    diag(exp(g)) + b a^T stretches it.
    log_decay: natural log, 0 or below: [H] constant, [B, T, H] or [B, T, H, K].
    scale: of q, K**-0.5 if None. initial_state: [B, H, K, V].
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end; states have N rows.

    Returns o [B, T, H, V] in v's dtype and the final state [B, H, K, V] in float32 (float64 for
    float64 inputs). ValueError for arguments that do not fit each other.
    """
    packing = _check(q, k, v, a, b, log_decay, initial_state, cu_seqlens)
    if packing is not None:
        return packing.in_rows(
            chunk_dplr,
            {"q": q, "k": k, "v": v, "a": a, "b": b, "log_decay": per_token(log_decay, q)},
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
    dtype, out_dtype = working_dtype(q, k, v, a, b, initial_state), v.dtype
    fused_on = fused_device("chunk_dplr", form, q, v, dtype)
    log_decay = None if log_decay is None else per_token(log_decay.to(dtype), q)
    chosen = choose_form(form, q.shape[1], fused_on=fused_on, fused_is_best=fused_is_best(v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    start = None if initial_state is None else initial_state.to(dtype)
    if chosen == "triton" and v.dtype == torch.bfloat16:
        dtype = torch.bfloat16  # as the output's, which is all that products are rounded for
    q, k, v, a, b = q.to(dtype), k.to(dtype), v.to(dtype), a.to(dtype), b.to(dtype)
    if chosen == "triton":
        from .triton.dplr import dplr_fused  # needs a package that CPU-only machines may lack

        o, state = dplr_fused(q, k, v, a, b, log_decay, start, scale)
    else:
        run = dplr_loop if chosen == "naive" else dplr_chunks
        o, state = run(q, k, v, a, b, log_decay, start, scale)
    return o.to(out_dtype), state


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    log_decay: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    check = Arguments("chunk_dplr")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T H V")
    check.tensor("a", a, "B T H K")
    check.tensor("b", b, "B T H K")
    check.one_of("log_decay", log_decay, ("H", "B T H", "B T H K"))
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, q.device)
    check.optional("initial_state", initial_state, "B H K V")
    check.log_decay_values("log_decay", log_decay)
    return packing
