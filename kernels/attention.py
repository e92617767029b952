"""causal_attention: softmax attention over all tokens or a sliding window, with a streaming past.

    o_t = sum_s softmax_s(scale q_t . k_s) v_s,  s from t - window + 1 (or the first token) to t

(arXiv 1706.03762; the window as in 2004.05150.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import Arguments
from .chunked.attention import attention_blocks
from .forms import Form, choose_form
from .naive.attention import attention_loop
from .precision import without_autocast, working_dtype

Past = tuple[Tensor, Tensor, Tensor]


@without_autocast
def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
    past: Past | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Past]:
    """Attend to this call's tokens up to one's own and to the past.

    q, k: [B, T, H, K]; v: [B, T, H, V]; scale: K**-0.5 if None.
    window: how many tokens a query sees, its own included; None: all. The cost is then quadratic
    in T, else T times window.
    past: (keys [B, P, H, K], values [B, P, H, V], int64 [] count of the real ones among them, which
    stand at the right), as the previous call returned it; None at the start of a sequence.

    Returns o [B, T, H, V] in v's dtype and the past for the next call. With a window that past has
    window - 1 rows, zeros at the left until as many tokens were seen; without one it grows with T.
    ValueError for arguments that do not fit each other.
    """
    _check(q, k, v, window, past)
    length, out_dtype = q.shape[1], v.dtype
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seen = None
    if past is not None:
        k = torch.cat((past[0].to(k.dtype), k), dim=1)
        v = torch.cat((past[1].to(v.dtype), v), dim=1)
        seen = past[2]
    naive = choose_form(form) == "naive"
    wider = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    dtype = working_dtype(q, k, v) if naive else wider
    run = attention_loop if naive else attention_blocks
    o = run(q.to(dtype), k.to(dtype), v.to(dtype), window, seen, scale)
    return o.to(out_dtype), _next_past(k, v, window, seen, length)


def _next_past(k: Tensor, v: Tensor, window: int | None, seen: Tensor | None, length: int) -> Past:
    before = torch.zeros((), dtype=torch.int64, device=k.device) if seen is None else seen
    if window is None:
        return k, v, before + length
    return _last(k, window - 1), _last(v, window - 1), (before + length).clamp(max=window - 1)


def _last(x: Tensor, rows: int) -> Tensor:
    """The last rows in storage of their own, with zeros at the left where x has fewer."""
    missing = max(rows - x.shape[1], 0)
    return F.pad(x[:, x.shape[1] + missing - rows :], (0, 0, 0, 0, missing, 0)).clone()


def _check(q: Tensor, k: Tensor, v: Tensor, window: int | None, past: Past | None) -> None:
    check = Arguments("causal_attention")
    check.tensor("q", q, "B T H K")
    check.tensor("k", k, "B T H K")
    check.tensor("v", v, "B T H V")
    if window is not None and window < 1:
        raise check.error(f"window is {window}; wanted 1 or more, or None")
    if past is None:
        return
    if len(past) != 3:
        raise check.error(f"past has {len(past)} tensors; wanted (keys, values, count)")
    if window is not None:
        check.fix("P", window - 1, "window - 1")
    check.tensor("past keys", past[0], "B P H K")
    check.tensor("past values", past[1], "B P H V")
    check.placed("past count", past[2])
    if past[2].dtype != torch.int64 or past[2].dim() != 0:
        raise check.error(
            f"past count has dtype {past[2].dtype} and shape {list(past[2].shape)}; wanted int64 []"
        )
