"""chunk_decay: linear attention with every kind of decay.

    S_t = diag(exp(g_t)) S_{t-1} diag(exp(h_t)) + k_t v_t^T,    o_t = S_t^T q_t

Linear attention (arXiv 2006.16236), RetNet (2307.08621), GLA (2312.06635), Mamba-2 (2405.21060),
HGRN-2 (2404.07904) and, with a bonus, RWKV-6 (2404.05892) are special cases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Arguments
from .chunked.decay import decay_chunks
from .forms import Form, choose_form
from .naive.decay import decay_loop
from .normaliser import divided, normalised_width, with_normaliser
from .packing import MaybeTensor, Packing
from .precision import without_autocast, working_dtype

LARGEST_FUSED_DIM = 256  # of K and V in the Triton form


@without_autocast
def chunk_decay(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    *,
    value_log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    normalise: bool = False,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Read q against the decayed sum of k v^T.

    q, k: [B, T, H, K]; v: [B, T, HV, V], HV a multiple of H (grouped values: value head i reads
    key head i // (HV / H)).
    log_decay: natural log, 0 or below: [H] constant, [B, T, H] or [B, T, H, K]; its heads may
    also be the HV value heads. value_log_decay: [B, T, HV, V], decays the state's columns.
    bonus: [H, K] or [HV, K]; the read is then o_t = (S_{t-1} + diag(bonus) k_t v_t^T)^T q_t.
    normalise: divide o_t by q_t . z_t, z the decayed sum of k (a divisor nearer to 0 than 1e-6
    counts as 1e-6). The state then has V + 1 columns, z the last.
    scale: of q, K**-0.5 if None. initial_state: [B, HV, K, V].
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end; states have N rows.

    Returns o [B, T, HV, V] in v's dtype and the final state [B, HV, K, V] in float32 (float64 for
    float64 inputs). ValueError for arguments that do not fit each other.
    """
    packing = _check(
        q, k, v, log_decay, value_log_decay, bonus, normalise, initial_state, cu_seqlens
    )
    if packing is not None:
        return packing.in_rows(
            chunk_decay,
            {
                "q": q,
                "k": k,
                "v": v,
                "log_decay": per_token(log_decay, q),
                "value_log_decay": value_log_decay,
            },
            bonus=bonus,
            normalise=normalise,
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
    out_dtype, heads, length = v.dtype, v.shape[2], q.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = working_dtype(q, k, v, initial_state)
    fuses = dtype == torch.float32 and scale != 0
    width = normalised_width(v.shape[-1], "triton") if normalise else v.shape[-1]
    fuses = fuses and max(q.shape[-1], width) <= LARGEST_FUSED_DIM
    form = choose_form(
        form,
        length,
        fused_on=q.device if fuses else None,
        fused_is_best=fused_is_best(v),
    )
    if log_decay is not None:
        log_decay = per_value_head(per_token(log_decay.to(dtype), q), heads)
    if bonus is not None:
        bonus = per_value_head(bonus.to(dtype), heads, axis=0)
    if value_log_decay is not None:
        value_log_decay = value_log_decay.to(dtype)
    if initial_state is not None:
        initial_state = initial_state.to(dtype)
    if form == "triton" and v.dtype == torch.bfloat16:
        dtype = torch.bfloat16  # as the output's, which is all that products are rounded for
    q, k = per_value_head(q.to(dtype), heads), per_value_head(k.to(dtype), heads)
    v = v.to(dtype)
    values = v.shape[-1]
    if normalise:
        width = normalised_width(values, form)
        v = with_normaliser(v, width)
        if value_log_decay is not None:
            value_log_decay = F.pad(value_log_decay, (0, width - values))
        if initial_state is not None:
            initial_state = F.pad(initial_state, (0, width - values - 1))
    if form == "triton":
        from .triton.any_decay import any_decay_fused as run  # CPU-only machines may lack Triton
    else:
        run = decay_loop if form == "naive" else decay_chunks
    o, state = run(q, k, v, log_decay, value_log_decay, bonus, initial_state, scale)
    if normalise:
        o, state = divided(o, values, form), state[..., : values + 1].contiguous()
    return o.to(out_dtype), state


def per_token(log_decay: MaybeTensor, q: Tensor) -> MaybeTensor:
    """A constant per head, [H], as [B, T, H]; other shapes as they are."""
    if log_decay is None:
        return None
    return log_decay.expand(*q.shape[:2], -1) if log_decay.dim() == 1 else log_decay


def fused_is_best(v: Tensor) -> bool:
    """Whether a recurrence that names no form takes Triton's on a GPU.

    Float32 products are no work for its matrix units.
    """
    return v.dtype == torch.bfloat16


def per_value_head(x: Tensor, heads: int, axis: int = 2) -> Tensor:
    """Key heads, each repeated for its value heads; value heads as they are."""
    repeats = heads // x.shape[axis]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=axis)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    value_log_decay: Tensor | None,
    bonus: Tensor | None,
    normalise: bool,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    check = Arguments("chunk_decay")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T HV V")
    check.multiple("v", "HV", "H", "q")
    check.one_of("log_decay", log_decay, ("H|HV", "B T H|HV", "B T H|HV K"))
    check.optional("value_log_decay", value_log_decay, "B T HV V")
    check.optional("bonus", bonus, "H|HV K")
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, q.device)
    if normalise:
        check.fix("V+1", v.shape[-1] + 1, "v with its normaliser")
    check.optional("initial_state", initial_state, "B HV K V+1" if normalise else "B HV K V")
    check.log_decay_values("log_decay", log_decay)
    check.log_decay_values("value_log_decay", value_log_decay)
    return packing
