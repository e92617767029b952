"""chunk_delta and chunk_oja: recurrences that erase before they write.

    delta: S <- diag(exp(g_t)) S_{t-1}, then S_t = S + b_t k_t (v_t - S^T p_t)^T
    oja:   S_t = S_{t-1} diag(exp(g_t)) (I - b_t v_t v_t^T) + b_t k_t v_t^T
    both:  o_t = S_t^T q_t

DeltaNet (arXiv 2406.06484), Gated DeltaNet (2412.06464), DeltaProduct with several steps a token
(2502.10297), Kimi Delta Attention with a decay per channel (2510.26692) and, with an erase key p
other than k, Comba (2506.02475).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments, values_are_checked
from .chunked.delta import delta_chunks, oja_chunks
from .decay import fused_is_best, per_token
from .forms import UNCHECKED, Form, choose_form
from .naive.delta import delta_loop, oja_loop
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
    erase_key: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace what the state holds under a key by a new value, with strength beta.

    q: [B, T, H, K]; k: [B, nT, H, K], v: [B, nT, H, V], beta: [B, nT, H] in 0 to 2: n steps a
    token one after another, the decay before the first. Normalise k (and erase_key): with
    |beta k . p| above 2 the state grows without bound.
    log_decay: natural log, 0 or below: [H] constant, [B, T, H] or [B, T, H, K].
    erase_key: p, [B, nT, H, K]; k if None. scale: of q, K**-0.5 if None.
    initial_state: [B, H, K, V].
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end, counted in tokens, not
    in steps; states have N rows.

    Returns o [B, T, H, V] in v's dtype and the final state [B, H, K, V] in float32 (float64 for
    float64 inputs). ValueError for arguments that do not fit each other.
    """
    packing = _check_delta(q, k, v, beta, log_decay, erase_key, initial_state, cu_seqlens)
    if packing is not None:
        o, state = chunk_delta(
            packing.unpack(q),
            packing.unpack(k),
            packing.unpack(v),
            packing.unpack(beta),
            packing.unpack(None if log_decay is None else per_token(log_decay, q)),
            erase_key=packing.unpack(erase_key),
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
        return packing.pack(o), state
    dtype, out_dtype = working_dtype(q, k, v, initial_state), v.dtype
    unfused = why_not_fused(q, v, dtype)
    if form == "triton" and unfused is not None:
        raise ValueError(f"chunk_delta: {unfused}; form 'chunked' takes it")
    form = choose_form(
        form,
        k.shape[1],
        fused_on=None if unfused else q.device,
        fused_is_best=fused_is_best(v),
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    beta = beta.to(dtype)
    log_decay = None if log_decay is None else per_token(log_decay.to(dtype), q)
    start = None if initial_state is None else initial_state.to(dtype)
    if form == "triton" and v.dtype == torch.bfloat16:
        dtype = torch.bfloat16  # as the output's, which is all that products are rounded for
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    p = None if erase_key is None else erase_key.to(dtype)
    if form == "triton":
        from .triton.delta import delta_fused  # needs a package that CPU-only machines may lack

        o, state = delta_fused(q, k, v, beta, log_decay, p, start, scale)
    else:
        run = delta_loop if form == "naive" else delta_chunks
        o, state = run(q, k, v, beta, log_decay, p, start, scale)
    return o.to(out_dtype), state


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
    """The delta rule's mirror image (Oja's rule): erases on the value side; normalise v.

    q, k: [B, T, H, K]; v: [B, T, H, V]; beta: [B, T, H] in 0 to 2.
    log_decay: [H], [B, T, H] or, one for each value channel, [B, T, H, V].
    form: Triton's is taken where it is asked for, not by itself on a GPU.
    Otherwise as `chunk_delta` with one step a token.
    """
    packing = _check_oja(q, k, v, beta, log_decay, initial_state, cu_seqlens)
    if packing is not None:
        o, state = chunk_oja(
            packing.unpack(q),
            packing.unpack(k),
            packing.unpack(v),
            packing.unpack(beta),
            packing.unpack(None if log_decay is None else per_token(log_decay, q)),
            scale=scale,
            initial_state=initial_state,
            form=form,
        )
        return packing.pack(o), state
    dtype, out_dtype = working_dtype(q, k, v, initial_state), v.dtype
    unfused = why_not_fused(q, v, dtype)
    if form == "triton" and unfused is not None:
        raise ValueError(f"chunk_oja: {unfused}; form 'chunked' takes it")
    form = choose_form(
        form,
        q.shape[1],
        fused_on=None if unfused else q.device,
        fused_is_best="chunk_oja" not in UNCHECKED and fused_is_best(v),
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


def why_not_fused(q: Tensor, v: Tensor, dtype: torch.dtype) -> str | None:
    """What of a call the Triton form does not take, or None."""
    if dtype == torch.float64:
        return "the Triton form takes bfloat16 and float32, and an argument is float64"
    for name, dim in (("K", q.shape[-1]), ("V", v.shape[-1])):
        if dim > LARGEST_FUSED_DIM:
            return f"the Triton form takes {name} up to {LARGEST_FUSED_DIM}, and {name} is {dim}"
    return None


def _check_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None,
    erase_key: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    check = Arguments("chunk_delta")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B nT H K")
    check.multiple("k", "nT", "T", "q")
    check.tensor("v", v, "B nT H V")
    check.tensor("beta", beta, "B nT H")
    check.optional("erase_key", erase_key, "B nT H K")
    check.one_of("log_decay", log_decay, ("H", "B T H", "B T H K"))
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, q.device)
    check.optional("initial_state", initial_state, "B H K V")
    _check_values(check, beta, log_decay)
    return packing


def _check_oja(
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
    _check_values(check, beta, log_decay)
    return packing


def _check_values(check: Arguments, beta: Tensor, log_decay: Tensor | None) -> None:
    check.log_decay_values("log_decay", log_decay)
    if values_are_checked() and not bool(((beta >= 0) & (beta <= 2)).all()):
        lowest, highest = beta.min().item(), beta.max().item()
        raise check.error(f"beta has values from {lowest} to {highest}; wanted 0 to 2")
