"""The kernels of short_convolution, forward and for all gradients at once:

    y_t = b + sum_i w_i x_{t - W + 1 + i},    z_t = act(y_t),    n_t = z_t / |z_t| over a head
    g = dL/dy,    dL/dw_i = sum_t g_t x_{t - W + 1 + i},    dL/dx_t = sum_i w_i g_{t + W - 1 - i}

A program has RUNS runs of `run` tokens and BD channels of each. A thread walks along its run with
some adjacent channels: it keeps the last W inputs, and in the backward pass the last W gradients
and its sums for the weight, so each element is read from memory once, in 16 bytes, and nothing is
exchanged between threads but the lengths of heads. STEP tokens are asked for at once, because
memory answers late.

Backward a run goes on for W - 1 tokens into the next one, whose gradients reach back into it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import sigmoid


@triton.jit
def _place(B, T, D, run, RUNS: tl.constexpr, BD: tl.constexpr):
    """Of each run [RUNS, 1]: its sequence, first token, tokens left; and the channels [1, BD]."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(D, BD)
    channels = (pid % blocks) * BD + tl.arange(0, BD)
    index = (pid // blocks) * RUNS + tl.arange(0, RUNS)
    runs = tl.cdiv(T, run)  # of a sequence
    first = (index % runs) * run
    b = index // runs
    left = tl.where(b < B, T - first, 0)
    return b[:, None].to(tl.int64), first[:, None], left[:, None], channels[None, :]


@triton.jit
def _taps(weight_ptr, channels, inside, W: tl.constexpr):
    taps = ()
    for i in tl.static_range(W):
        tap = tl.load(weight_ptr + channels * W + i, mask=inside, other=0.0)
        taps += (tap.to(tl.float32),)
    return taps


@triton.jit
def _before(x_at, start_at, first, left, inside, D, x_t, W: tl.constexpr):
    """The W inputs before each run, the first of which counts for nothing."""
    seen = (tl.zeros((first.shape[0], inside.shape[1]), dtype=tl.float32),)
    for i in tl.static_range(1, W):
        token = first + (i - W)
        mask = (left > 0) & inside
        x = tl.load(x_at + (i - W) * x_t, mask=mask & (token >= 0), other=0.0)
        start = tl.load(start_at + (token + (W - 1)) * D, mask=mask & (token < 0), other=0.0)
        seen += (x.to(tl.float32) + start.to(tl.float32),)
    return seen


@triton.jit
def _rows(at, step, left, inside, STEP: tl.constexpr):
    """The next tokens of runs that have `left`; 0 behind them."""
    rows = ()
    for j in tl.static_range(STEP):
        rows += (tl.load(at + j * step, mask=(left > j) & inside, other=0.0),)
    return rows


@triton.jit
def _then(rows, row, W: tl.constexpr):
    """The last W rows once `row` has come."""
    kept = ()
    for i in tl.static_range(1, W):
        kept += (rows[i],)
    kept += (row,)
    return kept


@triton.jit
def _sum(seen, taps, bias, W: tl.constexpr):
    y = seen[0] * taps[0] + bias
    for i in tl.static_range(1, W):
        y += seen[i] * taps[i]
    return y


@triton.jit
def _over_heads(x, HEAD: tl.constexpr):
    """The sum over each head, for each of its channels."""
    RUNS: tl.constexpr = x.shape[0]
    BD: tl.constexpr = x.shape[1]
    heads = tl.sum(tl.reshape(x, (RUNS, BD // HEAD, HEAD)), 2)[:, :, None]
    return tl.reshape(tl.broadcast_to(heads, (RUNS, BD // HEAD, HEAD)), (RUNS, BD))


@triton.jit(do_not_specialize=["B", "T", "run", "n_unit", "x_b", "x_t"])
def convolve_kernel(
    x_ptr, weight_ptr, bias_ptr, start_ptr, y_ptr, B, T, D, run, n_unit, eps, x_b, x_t,
    W: tl.constexpr, RUNS: tl.constexpr, BD: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr,
    HEAD: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """x_b, x_t: strides in UNIT elements. HEAD: the width of heads of unit length, 0 for none."""
    b, first, left, channels = _place(B, T, D, run, RUNS, BD)
    inside = channels < D
    x_t = x_t.to(tl.int64) * UNIT
    x_at = x_ptr + b * (x_b.to(tl.int64) * UNIT) + first * x_t + channels
    y_at = y_ptr + (b * T + first) * D + channels
    taps = _taps(weight_ptr, channels, inside, W)
    bias = 0.0
    if BIASED:
        bias = tl.load(bias_ptr + channels, mask=inside, other=0.0).to(tl.float32)
    seen = _before(x_at, start_ptr + b * (W - 1) * D + channels, first, left, inside, D, x_t, W)
    for i in range(0, run, STEP):
        x = _rows(x_at + i * x_t, x_t, left - i, inside, STEP)
        for j in tl.static_range(STEP):
            seen = _then(seen, x[j].to(tl.float32), W)
            y = _sum(seen, taps, bias, W)
            if SILU:
                y *= sigmoid(y)
            if HEAD > 0:
                y *= tl.where(channels < n_unit, tl.rsqrt(_over_heads(y * y, HEAD) + eps), 1.0)
            tl.store(y_at + (i + j) * D, y, mask=(left > i + j) & inside)


@triton.jit
def _gradient(
    grad, seen, taps, bias, unit, eps, W: tl.constexpr, HEAD: tl.constexpr, SILU: tl.constexpr
):
    """Before the activation."""
    y = _sum(seen, taps, bias, W)
    z = y
    if SILU:
        opened = sigmoid(y)
        z = y * opened
    if HEAD > 0:
        inverse = tl.rsqrt(_over_heads(z * z, HEAD) + eps)
        normed = z * inverse
        across = (grad - normed * _over_heads(normed * grad, HEAD)) * inverse
        grad = tl.where(unit, across, grad)
    if SILU:
        grad *= opened + z * (1.0 - opened)
    return grad


@triton.jit
def _back(gradients, taps, W: tl.constexpr):
    """dx of the token W - 1 before the last of W gradients."""
    dx = gradients[W - 1] * taps[0]
    for i in tl.static_range(1, W):
        dx += gradients[W - 1 - i] * taps[i]
    return dx


@triton.jit(do_not_specialize=["B", "T", "run", "n_unit", "x_b", "x_t"])
def convolve_pull_kernel(
    grad_ptr, x_ptr, weight_ptr, bias_ptr, start_ptr, dx_ptr, dstart_ptr, parts_ptr,
    B, T, D, run, n_unit, eps, x_b, x_t,
    W: tl.constexpr, RUNS: tl.constexpr, BD: tl.constexpr, STEP: tl.constexpr, UNIT: tl.constexpr,
    HEAD: tl.constexpr, BIASED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """parts: of the weight's gradient and, if BIASED, of the bias' behind it: [programs, W + 1, D]
    or [programs, W, D].
    """
    b, first, left, channels = _place(B, T, D, run, RUNS, BD)
    inside, unit = channels < D, channels < n_unit
    x_t = x_t.to(tl.int64) * UNIT
    x_at = x_ptr + b * (x_b.to(tl.int64) * UNIT) + first * x_t + channels
    flat = (b * T + first) * D + channels
    start = b * (W - 1) * D + channels
    taps = _taps(weight_ptr, channels, inside, W)
    bias = 0.0
    if BIASED:
        bias = tl.load(bias_ptr + channels, mask=inside, other=0.0).to(tl.float32)
    seen = _before(x_at, start_ptr + start, first, left, inside, D, x_t, W)
    zero = tl.zeros((RUNS, BD), dtype=tl.float32)
    dbias = zero
    gradients, dweight = (zero,), (zero,)
    for _ in tl.static_range(1, W):
        gradients += (zero,)
        dweight += (zero,)
    for i in range(0, run, STEP):
        x = _rows(x_at + i * x_t, x_t, left - i, inside, STEP)
        grad = _rows(grad_ptr + flat + i * D, D, left - i, inside, STEP)
        for j in tl.static_range(STEP):
            seen = _then(seen, x[j].to(tl.float32), W)
            g = _gradient(grad[j].to(tl.float32), seen, taps, bias, unit, eps, W, HEAD, SILU)
            gradients = _then(gradients, g, W)
            added = ()
            for k in tl.static_range(W):
                added += (dweight[k] + g * seen[k],)
            dweight = added
            dbias += g
            dx = _back(gradients, taps, W)
            back = i + j - (W - 1)
            token = first + back
            mask = (left > back) & inside & (token >= first)
            tl.store(dx_ptr + flat + back * D, dx, mask=mask)
            mask = (left > 0) & inside & (token < 0)
            tl.store(dstart_ptr + start + (i + j) * D, dx, mask=mask)
    x = _rows(x_at + run * x_t, x_t, left - run, inside, W - 1)
    grad = _rows(grad_ptr + flat + run * D, D, left - run, inside, W - 1)
    for j in tl.static_range(W - 1):
        seen = _then(seen, x[j].to(tl.float32), W)
        g = _gradient(grad[j].to(tl.float32), seen, taps, bias, unit, eps, W, HEAD, SILU)
        gradients = _then(gradients, g, W)
        back = run + j - (W - 1)
        at = dx_ptr + flat + back * D
        tl.store(at, _back(gradients, taps, W), mask=(left > back) & inside)
    program = tl.program_id(0) // tl.cdiv(D, BD)
    rows: tl.constexpr = W + 1 if BIASED else W
    parts_at = parts_ptr + program.to(tl.int64) * rows * D + channels
    for i in tl.static_range(W):
        tl.store(parts_at + i * D, tl.sum(dweight[i], 0)[None, :], mask=inside)
    if BIASED:
        tl.store(parts_at + W * D, tl.sum(dbias, 0)[None, :], mask=inside)
