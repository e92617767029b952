"""Launches of the kernels of decay-only recurrences: gates, sweeps, pulls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from . import configs
from .configs import CHUNK
from .gates import factor_gates_kernel, sum_gates_kernel
from .pull import pull_kernel
from .sweep import join_segments_kernel, sweep_kernel

NONE, HEAD, CHANNEL = 0, 1, 2  # the kernels' GATE


@dataclass(frozen=True, slots=True)
class Gates:
    """What a gate is for the kernels; empty tensors where it is not of the kind."""

    kind: int
    log_decay: Tensor  # contiguous
    sums: Tensor  # a head's: [B, H, whole chunks] summed; a channel's: G - M like k, if kept
    asked: Tensor  # q and k with a channel's gate in them
    given: Tensor
    middle: Tensor  # a channel's: [B, chunks, H, K]
    total: Tensor
    strong: Tensor  # [B, H], 1 where the EXACT launch has the work

    def tensors(self) -> tuple[Tensor, ...]:
        return self.sums, self.asked, self.given, self.middle, self.total, self.strong


def kind_of(log_decay: Tensor | None) -> int:
    if log_decay is None:
        return NONE
    return HEAD if log_decay.dim() == 3 else CHANNEL


def room_for_gates(q: Tensor, v: Tensor, log_decay: Tensor | None, keep: bool) -> Gates:
    """Tensors for `fill_gates`, not yet written."""
    kind = kind_of(log_decay)
    B, T, H, K = q.shape
    sums: tuple[int, ...] = (0,)
    if kind == HEAD:
        sums = (B, H, chunks_of(T) * CHUNK)
    elif kind == CHANNEL and keep:
        sums = (B, T, H, K)
    # A head's are in float64 for float32 inputs, because their differences are taken.
    wide = kind == HEAD and v.dtype == torch.float32
    factors = (B, T, H, K) if kind == CHANNEL else (0,)
    ends = (B, chunks_of(T), H, K) if kind == CHANNEL else (0,)
    return Gates(
        kind,
        q if log_decay is None else log_decay.contiguous(),
        q.new_empty(sums, dtype=torch.float64 if wide else torch.float32),
        q.new_empty(factors),
        q.new_empty(factors),
        q.new_empty(ends, dtype=torch.float32),
        q.new_empty(ends, dtype=torch.float32),
        q.new_zeros((B, H) if kind == CHANNEL else (0,), dtype=torch.int32),
    )


def fill_gates(gates: Gates, q: Tensor, k: Tensor, keep: bool) -> None:
    B, T, H, K = q.shape
    chunks = chunks_of(T)
    if gates.kind == HEAD:
        width = configs.block(H, 64)
        sum_gates_kernel[(B * chunks * triton.cdiv(H, width),)](
            gates.log_decay, gates.sums, T, H, chunks, *gates.sums.stride()[:2], C=CHUNK, BH=width
        )
    elif gates.kind == CHANNEL:
        width = configs.block(K, 64)
        factor_gates_kernel[(B * chunks * H * triton.cdiv(K, width),)](
            q, k, gates.log_decay, gates.asked, gates.given, gates.sums, gates.middle, gates.total,
            gates.strong, T, H, K, chunks, *rows(q), *rows(k),
            C=CHUNK, BK=width, EVEN_K=K % width == 0, KEEP=keep,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """A sweep's first and last state, contiguous, [B, H, M, N] if mn, else [B, H, N, M]."""

    start: Tensor | None = None
    start_scale: float = 1.0
    final: Tensor | None = None
    final_scale: float = 1.0
    mn: bool = False

    def strides(self, M: int, N: int) -> tuple[int, int]:
        return (1, N) if self.mn else (M, 1)


def sweep(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    gates: Gates,
    factored: tuple[Tensor, Tensor] | None = None,  # a and b with a channel's gate in them
    scale: float,
    ends: Ends,
    reverse: bool = False,
    saved: Tensor | None = None,  # [B, H, chunks, N, M]
) -> Tensor:
    """out, [B, T, H, N]; fills `ends.final` and `saved`."""
    (B, T, H, M), N = a.shape, c.shape[-1]
    chunks = chunks_of(T)
    config = configs.sweep(M, N, c.dtype, gate=gates.kind, reverse=reverse)
    parts = triton.cdiv(M, config.block_m) * triton.cdiv(N, config.block_n)
    segments = configs.segments(B * H * parts, chunks)
    length = triton.cdiv(chunks, segments)
    segments = triton.cdiv(chunks, length)
    parts_m = triton.cdiv(M, config.block_m)
    out = c.new_empty((parts_m, B, T, H, N), dtype=c.dtype if parts_m == 1 else torch.float32)

    def launch(ends: Ends, *, only_states: bool) -> None:
        for exact in (False, True) if gates.kind == CHANNEL else (False,):
            x, y = (a, b) if exact or factored is None else factored
            tile = configs.sweep(M, N, c.dtype, gate=gates.kind, reverse=reverse, exact=exact)
            start, final = ends.start, ends.final
            keeps = saved is not None and not only_states
            sweep_kernel[(B * H * segments * parts,)](
                x, y, c, gates.sums, gates.log_decay, gates.middle, gates.total, gates.strong,
                a if start is None else start, out, a if final is None else final,
                saved if keeps else a, scale, ends.start_scale, ends.final_scale,
                T, H, M, N, chunks, segments, length,
                *rows(x), *rows(y), *rows(c), *_heads(gates), out.stride(0), *rows(out[0]),
                *ends.strides(M, N),
                C=CHUNK, BM=tile.block_m, BN=tile.block_n, GATE=gates.kind, REVERSE=reverse,
                EXACT=exact, HAS_START=start is not None, OUT=not only_states,
                FINAL=final is not None, SAVE=keeps, EVEN_M=M % tile.block_m == 0,
                EVEN_N=N % tile.block_n == 0, PRECISION="ieee",
                **tile.compiled(),
            )  # fmt: skip

    if segments > 1:
        local = c.new_empty((B, H, segments, N, M), dtype=torch.float32)
        starts = torch.empty_like(local)
        launch(Ends(final=local), only_states=True)
        _join(local, starts, ends, gates, reverse, chunks, length)
        ends = Ends(start=starts)
    launch(ends, only_states=False)
    return out[0] if parts_m == 1 else out.sum(0).to(c.dtype)


def _join(
    local: Tensor, starts: Tensor, ends: Ends, gates: Gates, reverse: bool, chunks: int, length: int
) -> None:
    B, H, segments, N, M = local.shape
    block_m, block_n = configs.block(M, 32), configs.block(N, 32)
    join_segments_kernel[(B * H * triton.cdiv(M, block_m) * triton.cdiv(N, block_n),)](
        local, local if ends.start is None else ends.start, starts,
        local if ends.final is None else ends.final, gates.sums, gates.total,
        ends.start_scale, ends.final_scale, H, M, N, chunks, segments, length,
        *_heads(gates), *ends.strides(M, N),
        C=CHUNK, BM=block_m, BN=block_n, GATE=gates.kind, REVERSE=reverse,
        HAS_START=ends.start is not None, FINAL=ends.final is not None, AT_ONCE=16,
    )  # fmt: skip


def pull(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    do: Tensor,
    *,
    gates: Gates,
    saved: Tensor,
    dsaved: Tensor,
    scale: float,
    gate_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dg in float32; dg is empty if not asked for."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    chunks = chunks_of(T)
    dq, dk = torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape)
    shape: tuple[int, ...] = (0,)
    for exact in (False, True) if gates.kind == CHANNEL else (False,):
        tile = configs.pull(K, V, v.dtype, gate=gates.kind, exact=exact)
        blocks = triton.cdiv(K, tile.block_m)
        if gate_grad and not exact:
            shape = (blocks, B, T, H) if gates.kind == HEAD else (1, B, T, H, K)
            dg = q.new_empty(shape, dtype=torch.float32)
        x, y = (gates.asked, gates.given) if gates.kind == CHANNEL and not exact else (q, k)
        pull_kernel[(B * H * chunks * blocks,)](
            x, y, v, do, gates.sums, gates.log_decay, gates.middle, gates.total, gates.strong,
            saved, dsaved, dq, dk, dg if gate_grad else dq, scale, T, H, K, V, chunks,
            *rows(x), *rows(y), *rows(v), *rows(do), *_heads(gates),
            dg.stride(0) if gate_grad else 0,
            C=CHUNK, BK=tile.block_m, BV=tile.block_n, GATE=gates.kind, EXACT=exact,
            GATE_GRAD=gate_grad, EVEN_K=K % tile.block_m == 0, EVEN_V=V % tile.block_n == 0,
            PRECISION="ieee", **tile.compiled(),
        )  # fmt: skip
    if not gate_grad:
        return dq, dk, q.new_empty(0, dtype=torch.float32)
    return dq, dk, dg[0] if len(dg) == 1 else dg.sum(0)


def chunks_of(length: int) -> int:
    return -(-length // CHUNK)


def rows(x: Tensor) -> tuple[int, int, int]:
    return x.stride(0), x.stride(1), x.stride(2)


def _heads(gates: Gates) -> tuple[int, int]:
    """Strides of a head's sums."""
    return (gates.sums.stride(0), gates.sums.stride(1)) if gates.kind == HEAD else (0, 0)
