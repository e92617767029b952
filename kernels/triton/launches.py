"""Launches of the kernels of decay-only recurrences: gates, sweeps, pulls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from . import configs
from .config_table import Config
from .configs import CHUNK
from .gates import factor_gates_kernel, sum_gates_kernel
from .pull import pull_kernel
from .strides import rows
from .sweep import join_segments_kernel, sweep_kernel
from .whole_pull import whole_pull_kernel

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
    work = _Sweep(a, b, c, gates, factored, scale, reverse)
    cut = work.cut()
    parts_m = triton.cdiv(a.shape[-1], work.config().block_m)
    out = c.new_empty(
        (parts_m, *a.shape[:3], c.shape[-1]), dtype=c.dtype if parts_m == 1 else torch.float32
    )
    if cut.segments > 1:
        ends = work.starts(ends, cut)
    work.launch(ends, cut, out=out, saved=saved)
    return out[0] if parts_m == 1 else out.sum(0).to(c.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A sequence in segments of `length` chunks, of which the last may be shorter."""

    segments: int
    length: int


@dataclass(frozen=True, slots=True)
class _Sweep:
    """The arguments of `sweep` that all its launches share."""

    a: Tensor
    b: Tensor
    c: Tensor
    gates: Gates
    factored: tuple[Tensor, Tensor] | None
    scale: float
    reverse: bool

    def config(self, *, exact: bool = False) -> Config:
        M, N, dtype = self.a.shape[-1], self.c.shape[-1], self.c.dtype
        return configs.sweep(M, N, dtype, gate=self.gates.kind, reverse=self.reverse, exact=exact)

    def parts(self) -> int:
        """Tiles of the state, each a program's."""
        config = self.config()
        M, N = self.a.shape[-1], self.c.shape[-1]
        return triton.cdiv(M, config.block_m) * triton.cdiv(N, config.block_n)

    def cut(self) -> Cut:
        B, T, H, _ = self.a.shape
        return cut(B * H * self.parts(), chunks_of(T))

    def starts(self, ends: Ends, cut: Cut) -> Ends:
        """The state that each segment begins with; fills `ends.final`."""
        (B, _, H, M), N = self.a.shape, self.c.shape[-1]
        local = self.c.new_empty((B, H, cut.segments, N, M), dtype=torch.float32)
        starts = torch.empty_like(local)
        self.launch(Ends(final=local), cut, out=None, saved=None)
        _join(local, starts, ends, self.gates, self.reverse, chunks_of(self.a.shape[1]), cut)
        return Ends(start=starts)

    def launch(self, ends: Ends, cut: Cut, *, out: Tensor | None, saved: Tensor | None) -> None:
        """Without out, states are made alone."""
        a, c, gates = self.a, self.c, self.gates
        (B, T, H, M), N = a.shape, c.shape[-1]
        start, final = ends.start, ends.final
        to = c[None] if out is None else out
        for exact in (False, True) if gates.kind == CHANNEL else (False,):
            x, y = (a, self.b) if exact or self.factored is None else self.factored
            tile = self.config(exact=exact)
            sweep_kernel[(B * H * cut.segments * self.parts(),)](
                x, y, c, gates.sums, gates.log_decay, gates.middle, gates.total, gates.strong,
                a if start is None else start, to, a if final is None else final,
                a if saved is None else saved, self.scale, ends.start_scale, ends.final_scale,
                T, H, M, N, chunks_of(T), cut.segments, cut.length,
                *rows(x), *rows(y), *rows(c), *_heads(gates), to.stride(0), *rows(to[0]),
                *ends.strides(M, N),
                C=CHUNK, BM=tile.block_m, BN=tile.block_n, GATE=gates.kind, REVERSE=self.reverse,
                EXACT=exact, HAS_START=start is not None, OUT=out is not None,
                FINAL=final is not None, SAVE=saved is not None, EVEN_M=M % tile.block_m == 0,
                EVEN_N=N % tile.block_n == 0, PRECISION="ieee",
                **tile.compiled(),
            )  # fmt: skip


def cut(programs: int, chunks: int) -> Cut:
    """So that there are enough programs, `programs` of which would go through whole sequences."""
    segments = configs.segments(programs, chunks)
    length = triton.cdiv(chunks, segments)
    return Cut(segments=triton.cdiv(chunks, length), length=length)


def _join(
    local: Tensor, starts: Tensor, ends: Ends, gates: Gates, reverse: bool, chunks: int, cut: Cut
) -> None:
    B, H, _, N, M = local.shape
    block_m, block_n = configs.block(M, 32), configs.block(N, 32)
    join_segments_kernel[(B * H * triton.cdiv(M, block_m) * triton.cdiv(N, block_n),)](
        local, local if ends.start is None else ends.start, starts,
        local if ends.final is None else ends.final, gates.sums, gates.total,
        ends.start_scale, ends.final_scale, H, M, N, chunks, cut.segments, cut.length,
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


def fits_a_program(q: Tensor, v: Tensor, kind: int) -> bool:
    """Whether one program can hold the whole state, so that `whole_pull` makes all gradients."""
    if kind == CHANNEL or v.dtype not in configs.WHOLE_STATE_DTYPES:
        return False
    return max(q.shape[-1], v.shape[-1]) <= configs.WHOLE_STATE[kind]


def whole_pull(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    do: Tensor,
    *,
    gates: Gates,
    saved: Tensor,
    scale: float,
    ends: Ends,
    gate_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv and dg in float32, empty if not asked for; fills `ends.final`."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    pieces = cut(B * H, chunks_of(T))
    if pieces.segments > 1:
        ends = _Sweep(k, q, do, gates, None, scale, True).starts(ends, pieces)
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    dg = q.new_empty((B, T, H) if gate_grad else (0,), dtype=torch.float32)
    tile = configs.whole_pull(K, V, v.dtype, gate=gates.kind)
    start, final = ends.start, ends.final
    state_v, state_k = ends.strides(K, V)
    whole_pull_kernel[(B * H * pieces.segments,)](
        q, k, v, do, gates.sums, saved, q if start is None else start,
        dq, dk, dv, dg, q if final is None else final,
        scale, ends.start_scale, ends.final_scale, T, H, K, V, chunks_of(T),
        pieces.segments, pieces.length,
        *rows(q), *rows(k), *rows(v), *rows(do), *_heads(gates), state_v, state_k,
        C=CHUNK, BK=tile.block_m, BV=tile.block_n, GATE=gates.kind, GATE_GRAD=gate_grad,
        HAS_START=start is not None, FINAL=final is not None, EVEN_K=tile.block_m == K,
        EVEN_V=tile.block_n == V, PRECISION="ieee", **tile.compiled(),
    )  # fmt: skip
    return dq, dk, dv, dg


def chunks_of(length: int) -> int:
    return -(-length // CHUNK)


def _heads(gates: Gates) -> tuple[int, int]:
    """Strides of a head's sums."""
    return (gates.sums.stride(0), gates.sums.stride(1)) if gates.kind == HEAD else (0, 0)
