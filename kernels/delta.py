"""chunk_delta: a recurrence that erases before it writes.

    S <- diag(exp(g_t)) S_{t-1} diag(exp(h_t)), then S_t = S + k_t (w_t v_t - S^T (b_t p_t))^T
    o_t = S_t^T q_t

DeltaNet (arXiv 2406.06484), Gated DeltaNet (2412.06464), DeltaProduct with several steps a token
(2502.10297), Kimi Delta Attention with a decay per channel (2510.26692), with an erase key p other
than k Comba (2506.02475) and, with strengths b and w per channel, Gated DeltaNet-2 (2605.22791).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.delta import delta_chunks
from .decay import fused_is_best, per_token, per_value_head
from .forms import Form, choose_form
from .naive.delta import delta_loop
from .packing import Packing
from .precision import without_autocast, working_dtype

LARGEST_FUSED_DIM = 256  # of K and V in the Triton form


@without_autocast
def chunk_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    write_strength: Tensor | None = None,
    value_log_decay: Tensor | None = None,
    erase_key: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace what the state holds under a key by a new value, with strength beta.

    q: [B, T, H, K]; k: [B, nT, H, K], v: [B, nT, HV, V]: n steps a token one after another, the
    decays before the first. HV is a multiple of H (grouped values: value head i reads key head
    i // (HV / H)). Normalise k (and erase_key): with |beta k . p| above 2 the state grows without
    bound.
    beta: b, 0 to 2, [B, nT, H] or, for each channel of the key, [B, nT, H, K]. log_decay: natural
    log, 0 or below: [H] constant, [B, T, H] or [B, T, H, K]. The heads of both may also be the HV
    value heads.
    write_strength: w, [B, nT, HV] or [B, nT, HV, V]; beta if None, which is then one a head.
    value_log_decay: [B, T, HV, V], decays the state's columns.
    erase_key: p, [B, nT, H, K]; k if None. scale: of q, K**-0.5 if None.
    initial_state: [B, HV, K, V].
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end, counted in tokens, not
    in steps; states have N rows.

    Returns o [B, T, HV, V] in v's dtype and the final state [B, HV, K, V] in float32 (float64 for
    float64 inputs). ValueError for arguments that do not fit each other.
    """
    packing = _check(
        q, k, v, beta, log_decay, write_strength, value_log_decay, erase_key,
        initial_state, cu_seqlens,
    )  # fmt: skip
    if packing is not None:
        return packing.in_rows(
            chunk_delta,
            {
                "q": q,
                "k": k,
                "v": v,
                "beta": beta,
                "log_decay": per_token(log_decay, q),
                "write_strength": write_strength,
                "value_log_decay": value_log_decay,
                "erase_key": erase_key,
            },
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
    dtype, out_dtype, heads = working_dtype(q, k, v, initial_state), v.dtype, v.shape[2]
    form = choose_form(
        form,
        k.shape[1],
        fused_on=fused_device("chunk_delta", form, q, v, dtype),
        fused_is_best=fused_is_best(v),
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    beta = per_value_head(beta.to(dtype), heads)
    if log_decay is not None:
        log_decay = per_value_head(per_token(log_decay.to(dtype), q), heads)
    if write_strength is not None:
        write_strength = write_strength.to(dtype)
    if value_log_decay is not None:
        value_log_decay = value_log_decay.to(dtype)
    start = None if initial_state is None else initial_state.to(dtype)
    if form == "triton" and v.dtype == torch.bfloat16:
        dtype = torch.bfloat16  # as the output's, which is all that products are rounded for
    q, k = per_value_head(q.to(dtype), heads), per_value_head(k.to(dtype), heads)
    v = v.to(dtype)
    p = None if erase_key is None else per_value_head(erase_key.to(dtype), heads)
    if form == "naive":
        w = beta if write_strength is None else write_strength
        o, state = delta_loop(q, k, v, beta, w, log_decay, value_log_decay, p, start, scale)
        return o.to(out_dtype), state
    if write_strength is not None:
        v, beta, p = _with_one_strength(k, v, beta, write_strength, p)
    if form == "triton":
        from .triton.delta import delta_fused  # needs a package that CPU-only machines may lack

        o, state = delta_fused(q, k, v, beta, log_decay, value_log_decay, p, start, scale)
    else:
        o, state = delta_chunks(q, k, v, beta, log_decay, value_log_decay, p, start, scale)
    return o.to(out_dtype), state


def _with_one_strength(
    k: Tensor, v: Tensor, beta: Tensor, write_strength: Tensor, erase_key: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """v, beta and the erase key of the same recurrence with strengths of 1."""
    p = k if erase_key is None else erase_key
    strong_v, strong_p = _by_channel(write_strength) * v, _by_channel(beta) * p
    return strong_v.to(v.dtype), beta.new_ones(beta.shape[:3]), strong_p.to(k.dtype)


def _by_channel(strength: Tensor) -> Tensor:
    return strength.unsqueeze(-1) if strength.dim() == 3 else strength


def fused_device(
    operation: str, form: Form | None, q: Tensor, v: Tensor, dtype: torch.dtype
) -> torch.device | None:
    """Where a call has a Triton form, else None, or a ValueError if that form is asked for."""
    unfused = _why_not_fused(q, v, dtype)
    if form == "triton" and unfused is not None:
        raise ValueError(f"{operation}: {unfused}; form 'chunked' takes it")
    return None if unfused else q.device


def _why_not_fused(q: Tensor, v: Tensor, dtype: torch.dtype) -> str | None:
    """What of a call the Triton form does not take, or None."""
    if dtype == torch.float64:
        return "the Triton form takes bfloat16 and float32, and an argument is float64"
    for name, dim in (("K", q.shape[-1]), ("V", v.shape[-1])):
        if dim > LARGEST_FUSED_DIM:
            return f"the Triton form takes {name} up to {LARGEST_FUSED_DIM}, and {name} is {dim}"
    return None


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    write_strength: Tensor | None,
    value_log_decay: Tensor | None,
    erase_key: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    check = Arguments("chunk_delta")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B nT H K")
    check.multiple("k", "nT", "T", "q")
    check.tensor("v", v, "B nT HV V")
    check.multiple("v", "HV", "H", "q")
    check.placed("beta", beta)
    check.one_of("beta", beta, ("B nT H|HV", "B nT H|HV K"))
    check.one_of("write_strength", write_strength, ("B nT HV", "B nT HV V"))
    if write_strength is None and beta.dim() == 4:
        raise check.error(
            f"write_strength is None beside beta of shape {list(beta.shape)}, which has channels; "
            "wanted [B, nT, HV] or [B, nT, HV, V]"
        )
    check.optional("erase_key", erase_key, "B nT H K")
    check.one_of("log_decay", log_decay, ("H|HV", "B T H|HV", "B T H|HV K"))
    check.optional("value_log_decay", value_log_decay, "B T HV V")
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, q.device)
    check.optional("initial_state", initial_state, "B HV K V")
    check.log_decay_values("log_decay", log_decay)
    check.log_decay_values("value_log_decay", value_log_decay)
    check.strength_values("beta", beta)
    return packing
