"""The kernels of scan, forward in time and for the gradients from the end:

    h_t = exp(g_t) h_{t-1} + x_t
    dx_t = dh_t + c_{t+1},    c_t = exp(g_t) dx_t,    dg_t = c_t h_{t-1}

A program has BD channels of a sequence, or of one segment of it, and goes through tiles of RUNS
runs of RUN tokens. Each run finds what it adds to a state and how far it lets one decay; the runs
meet in an associative scan; then each steps once more from its true first state. Its tokens stay
with one thread, so a tile is read from memory once.

Why runs: memory of 4.3 TB/s that answers after some 800 ns wants 26 KB on their way to each of 132
processors, also where 4096 channels give each a single program of 32. A tile of bfloat16 x and
float32 g is 24 KB, and the loop's stages load two tiles ahead.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import LOG2_E, power_of_two


@triton.jit
def _rows(at, step, left, inside, RUN: tl.constexpr):
    """The tokens of runs that begin at `at` and have `left` tokens; 0 behind them."""
    rows = ()
    for j in tl.static_range(RUN):
        rows += (tl.load(at + j * step, mask=(left > j) & inside, other=0.0),)
    return rows


@triton.jit
def _then(decay, state, decay_before, before, decay_2, state_2, decay_before_2, before_2):
    """Runs 1 and then 2: the state after them, and the one before the last of them."""
    return (
        decay * decay_2,
        state * decay_2 + state_2,
        decay * decay_before_2,
        state * decay_before_2 + before_2,
    )


@triton.jit
def _join(decay, state):
    """Over runs from the first one: decay and state after each, and the state before it."""
    decay, state, _, before = tl.associative_scan(
        (decay, state, tl.zeros_like(decay) + 1.0, tl.zeros_like(state)), 0, _then
    )
    return decay, state, before


@triton.jit
def _last(x, runs, RUNS: tl.constexpr):
    """[1, BD]"""
    return tl.sum(tl.where(runs == RUNS - 1, x, 0.0), 0)[None, :]


@triton.jit
def _place(D, segments, BD: tl.constexpr, RUNS: tl.constexpr):
    pid = tl.program_id(0)
    blocks = tl.cdiv(D, BD)
    segment = (pid // blocks) % segments
    b = (pid // (blocks * segments)).to(tl.int64)
    channels = ((pid % blocks) * BD + tl.arange(0, BD))[None, :]
    return b, segment, channels, tl.arange(0, RUNS)[:, None]


@triton.jit
def _first_state(
    start_ptr, decays_ptr, added_ptr, b, segment, segments, channels, inside, D,
    HAS_START: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """[1, BD], from what earlier segments add and how far they let a state decay."""
    state = tl.zeros((1, BD), dtype=tl.float32)
    if HAS_START:
        state += tl.load(start_ptr + b * D + channels, mask=inside, other=0.0)
    for i in range(segment):
        at = (b * segments + i) * D + channels
        decay = tl.load(decays_ptr + at, mask=inside, other=0.0)
        state = state * decay + tl.load(added_ptr + at, mask=inside, other=0.0)
    return state


@triton.jit(do_not_specialize=["T", "segments", "tiles"])
def segment_kernel(
    x_ptr, g_ptr, decays_ptr, added_ptr, T, D, segments, tiles, x_b, x_t, g_b, g_t,
    RUNS: tl.constexpr, RUN: tl.constexpr, BD: tl.constexpr, STAGES: tl.constexpr,
    REVERSE: tl.constexpr,
):  # fmt: skip
    """What each segment but the last adds to the state, and how far it lets one decay.

    [B, segments, D]. Nothing is asked about the tokens between, so that a run is all of `tiles` RUN
    tokens and runs meet once. REVERSE: x is dh, and the first segment is the last in time.
    """
    b, segment, channels, runs = _place(D, segments, BD, RUNS)
    inside = channels < D
    state = tl.zeros((RUNS, BD), dtype=tl.float32)
    decay = tl.full((RUNS, BD), 1.0, dtype=tl.float32)
    turns = tl.where(segment < segments - 1, tiles, 0)
    for i in tl.range(turns, num_stages=STAGES):
        done = ((segment * RUNS + runs) * tiles + i) * RUN
        token = (T - 1 - done if REVERSE else done).to(tl.int64)
        x_at = x_ptr + b * x_b + token * x_t + channels
        g_at = g_ptr + b * g_b + token * g_t + channels
        x = _rows(x_at, -x_t if REVERSE else x_t, T - done, inside, RUN)
        g = _rows(g_at, -g_t if REVERSE else g_t, T - done, inside, RUN)
        for j in tl.static_range(RUN):
            kept = power_of_two(g[j].to(tl.float32) * LOG2_E)
            if REVERSE:
                state = kept * (state + x[j].to(tl.float32))
            else:
                state = kept * state + x[j].to(tl.float32)
            decay *= kept
    decay, state, _ = _join(decay, state)
    at = (b * segments + segment) * D + channels
    tl.store(decays_ptr + at, _last(decay, runs, RUNS), mask=inside)
    tl.store(added_ptr + at, _last(state, runs, RUNS), mask=inside)


@triton.jit(do_not_specialize=["T", "segments", "tiles"])
def scan_kernel(
    x_ptr, g_ptr, start_ptr, decays_ptr, added_ptr, h_ptr, final_ptr,
    T, D, segments, tiles, x_b, x_t, g_b, g_t,
    RUNS: tl.constexpr, RUN: tl.constexpr, BD: tl.constexpr, STAGES: tl.constexpr,
    HAS_START: tl.constexpr,
):  # fmt: skip
    b, segment, channels, runs = _place(D, segments, BD, RUNS)
    inside = channels < D
    carried = _first_state(
        start_ptr, decays_ptr, added_ptr, b, segment, segments, channels, inside, D, HAS_START, BD
    )
    for i in tl.range(tiles, num_stages=STAGES):
        done = ((segment * tiles + i) * RUNS + runs) * RUN
        token = done.to(tl.int64)
        x = _rows(x_ptr + b * x_b + token * x_t + channels, x_t, T - done, inside, RUN)
        g = _rows(g_ptr + b * g_b + token * g_t + channels, g_t, T - done, inside, RUN)
        state = tl.zeros((RUNS, BD), dtype=tl.float32)
        decay = tl.full((RUNS, BD), 1.0, dtype=tl.float32)
        kept = ()
        for j in tl.static_range(RUN):
            kept += (power_of_two(g[j].to(tl.float32) * LOG2_E),)
            state = kept[j] * state + x[j].to(tl.float32)
            decay *= kept[j]
        _, state, before = _join(decay, state + tl.where(runs == 0, decay * carried, 0.0))
        before = tl.where(runs == 0, carried, before)
        carried = _last(state, runs, RUNS)
        h_at = h_ptr + (b * T + token) * D + channels
        for j in tl.static_range(RUN):
            before = kept[j] * before + x[j].to(tl.float32)
            h = before.to(h_ptr.dtype.element_ty)
            tl.store(h_at + j * D, h, mask=(T - done > j) & inside)
    if segment == segments - 1:
        tl.store(final_ptr + b * D + channels, carried, mask=inside)


@triton.jit(do_not_specialize=["T", "segments", "tiles"])
def scan_pull_kernel(
    dh_ptr, g_ptr, h_ptr, start_ptr, dfinal_ptr, decays_ptr, added_ptr,
    dx_ptr, dg_ptr, dstart_ptr,
    T, D, segments, tiles, dh_b, dh_t, g_b, g_t,
    RUNS: tl.constexpr, RUN: tl.constexpr, BD: tl.constexpr, STAGES: tl.constexpr,
    HAS_START: tl.constexpr, HAS_DFINAL: tl.constexpr, GATE_GRAD: tl.constexpr,
    CONSTANT: tl.constexpr, START_GRAD: tl.constexpr,
):  # fmt: skip
    """CONSTANT: dg is [B, segments, D], what each program's tokens add to the gradient."""
    b, segment, channels, runs = _place(D, segments, BD, RUNS)
    inside = channels < D
    carried = _first_state(
        dfinal_ptr, decays_ptr, added_ptr, b, segment, segments, channels, inside, D, HAS_DFINAL, BD
    )
    dg = tl.zeros((RUNS, BD), dtype=tl.float32)
    for i in tl.range(tiles, num_stages=STAGES):
        done = ((segment * tiles + i) * RUNS + runs) * RUN
        left = T - done
        token = (left - 1).to(tl.int64)
        flat = (b * T + token) * D + channels
        dh = _rows(dh_ptr + b * dh_b + token * dh_t + channels, -dh_t, left, inside, RUN)
        g = _rows(g_ptr + b * g_b + token * g_t + channels, -g_t, left, inside, RUN)
        if GATE_GRAD:
            h = _rows(h_ptr + flat - D, -D, left - 1, inside, RUN)
        c = tl.zeros((RUNS, BD), dtype=tl.float32)
        decay = tl.full((RUNS, BD), 1.0, dtype=tl.float32)
        kept = ()
        for j in tl.static_range(RUN):
            kept += (power_of_two(g[j].to(tl.float32) * LOG2_E),)
            c = kept[j] * (c + dh[j].to(tl.float32))
            decay *= kept[j]
        _, c, before = _join(decay, c + tl.where(runs == 0, decay * carried, 0.0))
        before = tl.where(runs == 0, carried, before)
        carried = _last(c, runs, RUNS)
        for j in tl.static_range(RUN):
            dx = before + dh[j].to(tl.float32)
            mask = (left > j) & inside
            tl.store(dx_ptr + flat - j * D, dx.to(dx_ptr.dtype.element_ty), mask=mask)
            before = kept[j] * dx
            if GATE_GRAD:
                of_gate = before * h[j].to(tl.float32)
                if CONSTANT:
                    dg += of_gate
                else:
                    mask = (left - 1 > j) & inside
                    of_gate = of_gate.to(dg_ptr.dtype.element_ty)
                    tl.store(dg_ptr + flat - j * D, of_gate, mask=mask)
    # The first token's gate decays the initial state, which is not among the h.
    of_first = tl.zeros((1, BD), dtype=tl.float32)
    if segment == segments - 1:
        at = b * D + channels
        if HAS_START and GATE_GRAD:
            of_first = carried * tl.load(start_ptr + at, mask=inside, other=0.0)
        if GATE_GRAD and not CONSTANT:
            dg_at = dg_ptr + b * T * D + channels
            tl.store(dg_at, of_first.to(dg_ptr.dtype.element_ty), mask=inside)
        if START_GRAD:
            tl.store(dstart_ptr + at, carried, mask=inside)
    if GATE_GRAD and CONSTANT:
        of_first += tl.sum(dg, 0)[None, :]
        tl.store(dg_ptr + (b * segments + segment) * D + channels, of_first, mask=inside)
