"""causal_attention: softmax attention over all tokens or a sliding window, with a streaming past.

    o_t = sum_s p_ts v_s,  p_ts = e^{x_ts} / (e^{sink} + sum_s e^{x_ts}),
    x_ts = scale q_t . k_s + sum_{u=s+1..t} g_u,  s from t - window + 1 (or the first token) to t

Attention (arXiv 1706.03762), the window as in 2004.05150, log decays g as in the Forgetting
Transformer (2503.02130; constant ones are ALiBi's slopes, 2108.12409), sinks after 2309.17453.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Arguments
from .chunked.attention import attention_blocks
from .decay import per_token
from .forms import Form, choose_form
from .naive.attention import attention_loop
from .precision import without_autocast, working_dtype

LARGEST_FUSED_DIM = 256  # of K and V in the Triton form
# (keys, values, count), and the log decays if the call has them
Past = tuple[Tensor, ...]


@without_autocast
def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    *,
    sinks: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
    past: Past | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Past]:
    """Attend to this call's tokens up to one's own and to the past.

    q, k: [B, T, H, K]; v: [B, T, H, V]; scale: K**-0.5 if None.
    log_decay: natural log, 0 or below, [H] constant or [B, T, H]: a score loses what decays after
    its key's token, up to the query's own.
    sinks: [H], the score of a key that every query sees and whose value is 0; nothing decays it.
    window: how many tokens a query sees, its own included; None: all. The cost is then quadratic
    in T, else T times window.
    past: (keys [B, P, H, K], values [B, P, H, V], int64 [] count of the real ones among them, which
    stand at the right) and with log_decay a fourth, theirs [B, P, H], as the previous call returned
    it; None at the start of a sequence.

    Returns o [B, T, H, V] in v's dtype and the past for the next call. With a window that past has
    window - 1 rows, zeros at the left until as many tokens were seen; without one it grows with T.
    The Triton form takes no past. ValueError for arguments that do not fit each other.
    """
    _check(q, k, v, log_decay, sinks, window, past)
    length, out_dtype = q.shape[1], v.dtype
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if log_decay is not None:
        log_decay = per_token(log_decay, q).contiguous()
    seen = None
    if past is not None:
        k, v = _after(past[0], k), _after(past[1], v)
        log_decay = None if log_decay is None else _after(past[3], log_decay)
        seen = past[2]
    dtype = working_dtype(q, k, v, log_decay, sinks)
    plain = log_decay is None and sinks is None
    fuses = dtype == torch.float32 and past is None
    fuses = fuses and max(q.shape[-1], v.shape[-1]) <= LARGEST_FUSED_DIM
    # Alone, full attention is torch's fused one (the chunked form), unless Triton's is asked for.
    fuses = fuses and not (plain and window is None and form is None)
    form = choose_form(form, fused_on=q.device if fuses else None)
    gates = None if log_decay is None else log_decay.to(dtype)
    sinks = None if sinks is None else sinks.to(dtype)
    if form == "chunked" and plain:
        dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    if form == "triton" and {x.dtype for x in (q, k, v)} == {torch.bfloat16}:
        dtype = torch.bfloat16
    inputs = (q.to(dtype), k.to(dtype), v.to(dtype), gates, sinks, window)
    if form == "triton":
        from .triton.attention import attention_fused  # needs a package that some machines lack

        o = attention_fused(*inputs, scale)
    else:
        run = attention_loop if form == "naive" else attention_blocks
        o = run(*inputs, seen, scale)
    return o.to(out_dtype), _next_past(k, v, log_decay, window, seen, length)


def _after(past: Tensor, x: Tensor) -> Tensor:
    return torch.cat((past.to(x.dtype), x), dim=1)


def _next_past(
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    window: int | None,
    seen: Tensor | None,
    length: int,
) -> Past:
    before = torch.zeros((), dtype=torch.int64, device=k.device) if seen is None else seen
    count = before + length
    rows: tuple[Tensor, ...] = (k, v) if log_decay is None else (k, v, log_decay)
    if window is not None:
        count = count.clamp(max=window - 1)
        rows = tuple(_last(x, window - 1) for x in rows)
    return *rows[:2], count, *rows[2:]


def _last(x: Tensor, rows: int) -> Tensor:
    """The last rows in storage of their own, with zeros at the left where x has fewer."""
    missing = max(rows - x.shape[1], 0)
    padding = (0, 0) * (x.dim() - 2) + (missing, 0)
    return F.pad(x[:, x.shape[1] + missing - rows :], padding).clone()


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    sinks: Tensor | None,
    window: int | None,
    past: Past | None,
) -> None:
    check = Arguments("causal_attention")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T H V")
    check.one_of("log_decay", log_decay, ("H", "B T H"))
    check.optional("sinks", sinks, "H")
    check.log_decay_values("log_decay", log_decay)
    if window is not None and window < 1:
        raise check.error(f"window is {window}; wanted 1 or more, or None")
    if past is not None:
        _check_past(check, past, window, log_decay is not None)


def _check_past(check: Arguments, past: Past, window: int | None, decays: bool) -> None:
    wanted = "(keys, values, count, log decays)" if decays else "(keys, values, count)"
    if len(past) != (4 if decays else 3):
        raise check.error(f"past has {len(past)} tensors; wanted {wanted}")
    if window is not None:
        check.fix("P", window - 1, "window - 1")
    check.tensor("past keys", past[0], "B P H K")
    check.tensor("past values", past[1], "B P H V")
    check.placed("past count", past[2])
    if past[2].dtype != torch.int64 or past[2].dim() != 0:
        raise check.error(
            f"past count has dtype {past[2].dtype} and shape {list(past[2].shape)}; wanted int64 []"
        )
    if decays:
        check.tensor("past log decays", past[3], "B P H")
