"""scan: the elementwise recurrence h_t = exp(g_t) h_{t-1} + x_t.

HGRN (arXiv 2311.04823), RG-LRU (2402.19427) and minGRU (2410.01201) are gates around it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.scan import scan_chunks
from .forms import Form, choose_form
from .naive.scan import scan_loop
from .packing import Packing
from .precision import working_dtype


def scan(
    x: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    form: Form | None = None,
) -> tuple[Tensor, Tensor]:
    """A decaying sum over time for each channel.

    x: [B, T, D]; log_decay: natural log, 0 or below, [D] constant or [B, T, D];
    initial_state: [B, D].
    cu_seqlens: [N + 1], where N sequences packed into B = 1 begin and end; states have N rows.

    Returns h [B, T, D] in x's dtype and the final state [B, D] in float32 (float64 for float64
    inputs). ValueError for arguments that do not fit each other.
    """
    check = Arguments("scan")
    check.tensor("x", x, "B T D")
    check.one_of("log_decay", log_decay, ("D", "B T D"))
    packing = None if cu_seqlens is None else Packing.of(check, cu_seqlens, x.device)
    check.optional("initial_state", initial_state, "B D")
    check.log_decay_values("log_decay", log_decay)
    if packing is not None:
        packed: dict[str, Tensor | None] = {"x": x, "log_decay": log_decay.expand_as(x)}
        return packing.in_rows(scan, packed, initial_state=initial_state, form=form)
    dtype = working_dtype(x, initial_state)
    fuses = working_dtype(x, log_decay, initial_state) == torch.float32
    form = choose_form(form, x.shape[1], fused_on=x.device if fuses else None)
    start = None if initial_state is None else initial_state.to(dtype)
    if form == "triton":
        from .triton.scan import scan_fused  # needs a package that CPU-only machines may lack

        return scan_fused(x, log_decay, start)
    run = scan_loop if form == "naive" else scan_chunks
    h, state = run(x.to(dtype), log_decay.to(dtype).expand_as(x), start)
    return h.to(x.dtype), state
