"""How the delta rule's solves and pulls are launched, for itself and for Oja's rule.

What has a decay of each channel gets a second launch, for strong ones (strong_gates.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import triton
from torch import Tensor

from .config_table import Config
from .delta_channel_pull import pull_channels_kernel
from .delta_exact_pull import exact_pull_kernel
from .delta_exact_solve import exact_solve_kernel
from .delta_pull import pull_kernel
from .delta_solve import solve_kernel
from .launches import CHANNEL
from .strides import rows
from .strong_gates import CHUNKS_AT_ONCE


def launch_solve(
    streams: tuple[Tensor, Tensor, Tensor],  # q, k, p [B, T, H, K], rows adjacent in memory
    beta: Tensor,
    log_decay: Tensor,  # contiguous; any tensor without a gate
    found: tuple[Tensor, Tensor, Tensor, Tensor],  # room for sums, strong, Z, scores
    factored: tuple[Tensor, Tensor, Tensor],  # room for asking, giving, erasing
    config: Config,
    shared: dict[str, Any],  # C, GATE, OWN_KEY, PRECISION
    **flags: Any,  # perhaps ASKED
) -> None:
    q, k, p = streams
    B, T, H, K = k.shape
    chunks = triton.cdiv(T, shared["C"])
    sizes = (T, H, K, chunks, *rows(q), *rows(k), *rows(p))
    constants = {**flags, "BK": config.block_m, "EVEN_K": K % config.block_m == 0}
    solve_kernel[(B * H * chunks,)](
        *streams, beta, log_decay, *found, *factored, *sizes,
        **config.compiled(), **constants, **shared,
    )  # fmt: skip
    if shared["GATE"] == CHANNEL:
        config = replace(config, num_warps=8, num_stages=1)
        exact_solve_kernel[(B * H * triton.cdiv(chunks, CHUNKS_AT_ONCE),)](
            *streams, beta, *found, *factored, *sizes, AT_ONCE=CHUNKS_AT_ONCE,
            C=shared["C"], PRECISION=shared["PRECISION"], **config.compiled(), **constants,
        )  # fmt: skip


def launch_pull(
    streams: tuple[Tensor, Tensor, Tensor],  # q, k, p [B, T, H, K], rows adjacent in memory
    beta: Tensor,
    sums: Tensor,
    strong: Tensor,
    written: tuple[Tensor, Tensor, Tensor],  # c, do, dv [B, T, H, V]
    states: tuple[Tensor, Tensor],  # before each chunk, and gradients after it [B, H, N, K, V]
    pairs: tuple[Tensor, Tensor],  # [B, H, N, C, C]
    grads: tuple[Tensor, Tensor, Tensor, Tensor],  # room for those of q, k, p and the gates
    scale: float,
    config: Config,
    shared: dict[str, Any],  # C, GATE, OWN_KEY, PRECISION
    **flags: Any,  # GATE_GRAD, STEPS, perhaps OF_Q
) -> None:
    """A head's gates get their gradient in parts [parts, B, T, H], one for each tile of keys."""
    q, k, p = streams
    _, do, _ = written
    dg = grads[-1]
    B, H, chunks, K, V = states[0].shape
    T = q.shape[1]
    parts = triton.cdiv(K, config.block_m)
    places = (*rows(q), *rows(k), *rows(p), *rows(do))
    sizes = (scale, T, H, K, V, chunks)
    constants = {**shared, **flags, **config.tile(K, V)}
    if shared["GATE"] != CHANNEL:
        pull_kernel[(B * H * chunks * parts,)](
            *streams, beta, sums, *written, *states, *pairs, *grads, *sizes, dg.stride(0), *places,
            **config.compiled(), **constants,
        )  # fmt: skip
        return
    constants.pop("GATE")
    tensors = (*streams, beta, sums, strong, *written, *states, *pairs, *grads)
    pull_channels_kernel[(B * H * chunks * parts,)](
        *tensors, *sizes, *places, **config.compiled(), **constants
    )
    config = replace(config, num_warps=8, num_stages=1)  # its rows fill four warps' registers
    exact_pull_kernel[(B * H * triton.cdiv(chunks, CHUNKS_AT_ONCE) * parts,)](
        *tensors, *sizes, *places, AT_ONCE=CHUNKS_AT_ONCE, **config.compiled(), **constants
    )
