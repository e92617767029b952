"""Around the sweeps: log decays summed in each chunk before them, and gate gradients made after.

A gate's gradient at r sums the pairs s < r <= t of writers and readers. With `up` the pairs that
end at t (less those that begin there, for pairs inside a chunk), `down` the pairs that begin at s
and leave its chunk, and X the pairs that pass over a whole chunk:
    dg_r = sum_{t >= r} up_t + sum_{s < r} down_s + X
    X of the chunk before = X + sum up - sum down of the chunk before
X is computed from the states themselves at every eighth chunk, the last among them. A token's pair
with itself, which no gate divides, is never added: where all gates are strong, its rounding would
be larger than the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import LOG2_E, power_of_two

# A lower log decay counts as this: exp of it is 0 in float32, and sums of it stay finite.
LOWEST_LOG_DECAY = tl.constexpr(-1000.0)
# Exponents of 2 up to this leave room in float32 for what they multiply.
FARTHEST = tl.constexpr(115.0)


@triton.jit(do_not_specialize=["T", "chunks"])
def sum_gates_kernel(
    g_ptr, sums_ptr, strong_ptr, T, D, K, chunks, sums_b, sums_t, sums_d,
    C: tl.constexpr, BD: tl.constexpr, MARK: tl.constexpr,
):  # fmt: skip
    """From g to base-2 sums, both [B, T, D]; marks heads that `sweep` must do exactly."""
    blocks = tl.cdiv(D, BD)
    pid = tl.program_id(0)
    columns = (pid % blocks) * BD + tl.arange(0, BD)
    chunk = (pid // blocks) % chunks
    batch = (pid // (blocks * chunks)).to(tl.int64)
    tokens = chunk * C + tl.arange(0, C)
    mask = (tokens[:, None] < T) & (columns[None, :] < D)
    place = (batch * T + tokens[:, None]) * D + columns[None, :]
    g = tl.load(g_ptr + place, mask=mask, other=0.0).to(sums_ptr.dtype.element_ty)
    sums = tl.cumsum(tl.maximum(g, LOWEST_LOG_DECAY) * LOG2_E, 0)
    sums_at = sums_ptr + batch * sums_b + tokens[:, None].to(tl.int64) * sums_t
    # A head's sums fill the last chunk: the sweep loads them with no mask.
    mask = mask if MARK else columns[None, :] < D
    tl.store(sums_at + columns[None, :] * sums_d, sums, mask=mask)
    if MARK:
        inside = (tokens[:, None] < T) & (columns[None, :] < D)
        at_middle = tl.arange(0, C) == tl.minimum(C // 2 - 1, T - chunk * C - 1)
        middle = tl.sum(tl.where(at_middle[:, None], sums, 0.0), 0)
        farthest = tl.max(tl.where(inside, tl.abs(sums - middle[None, :]), 0.0), 0)
        head = batch * (D // K) + columns // K
        tl.store(strong_ptr + head, 1, mask=(farthest > FARTHEST) & (columns < D))


@triton.jit(do_not_specialize=["T", "H", "chunks", "every"])
def passing_pairs_kernel(
    saved_ptr, dsaved_ptr, sums_ptr, passing_ptr, scale, T, H, K, V, chunks, every,
    sums_b, sums_t, sums_h,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PER_CHANNEL: tl.constexpr,
):  # fmt: skip
    """X at the saved chunks: 2^G <S, dS> for each key channel, [B, anchors, H, K].

    saved: [B, H, anchors, V, K]; dsaved, of gradients over `scale`: [B, H, anchors, K, V].
    """
    blocks = tl.cdiv(K, BK)
    anchors = tl.cdiv(chunks, every)
    pid = tl.program_id(0)
    keys = (pid % blocks) * BK + tl.arange(0, BK)
    at = (pid // blocks).to(tl.int64)  # of [B, H, anchors]
    anchor = at % anchors
    bh = at // anchors
    b = bh // H
    h = bh % H
    passing = tl.zeros((BK,), dtype=tl.float32)
    for begin in range(0, V, BV):
        values = begin + tl.arange(0, BV)
        mask = (keys[:, None] < K) & (values[None, :] < V)
        base = at * K * V
        state = tl.load(
            saved_ptr + base + values[None, :] * K + keys[:, None], mask=mask, other=0.0
        )
        dstate = tl.load(
            dsaved_ptr + base + keys[:, None] * V + values[None, :], mask=mask, other=0.0
        )
        passing += tl.sum(state.to(tl.float32) * dstate.to(tl.float32), 1)
    end = tl.minimum((chunks - anchor * every) * C, T) - 1
    sums_at = sums_ptr + b * sums_b + end.to(tl.int64) * sums_t + h * sums_h
    if PER_CHANNEL:
        total = tl.load(sums_at + keys, mask=keys < K, other=0.0).to(tl.float32)
    else:
        total = tl.load(sums_at).to(tl.float32)
    place = ((b * anchors + anchor) * H + h) * K + keys
    tl.store(passing_ptr + place, passing * power_of_two(total) * scale, mask=keys < K)


@triton.jit(do_not_specialize=["T", "chunks", "every"])
def pull_gates_kernel(
    up_ptr, down_ptr, passing_ptr, dg_ptr, T, D, chunks, every, up_b, up_t, up_d,
    C: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """From up and down [B, T, D] and X [B, anchors, D] to dg [B, T, D]."""
    blocks = tl.cdiv(D, BD)
    anchors = tl.cdiv(chunks, every)
    pid = tl.program_id(0)
    columns = (pid % blocks) * BD + tl.arange(0, BD)
    anchor = (pid // blocks) % anchors
    batch = (pid // (blocks * anchors)).to(tl.int64)
    inside = columns < D
    passing = tl.load(
        passing_ptr + (batch * anchors + anchor) * D + columns, mask=inside, other=0.0
    )
    last = chunks - 1 - anchor * every
    rows = tl.arange(0, C)
    for back in range(tl.minimum(every, last + 1)):
        tokens = (last - back) * C + rows
        mask = (tokens[:, None] < T) & inside[None, :]
        place = batch * up_b + tokens[:, None].to(tl.int64) * up_t + columns[None, :] * up_d
        up = tl.load(up_ptr + place, mask=mask, other=0.0)
        before = tl.load(down_ptr + place - up_t, mask=mask & (rows[:, None] > 0), other=0.0)
        if back > 0:
            end = batch * up_b + ((last - back + 1) * C - 1).to(tl.int64) * up_t + columns * up_d
            passing -= tl.sum(before, 0) + tl.load(down_ptr + end, mask=inside, other=0.0)
        dg = tl.cumsum(up, 0, reverse=True) + tl.cumsum(before, 0) + passing[None, :]
        tl.store(dg_ptr + (batch * T + tokens[:, None]) * D + columns[None, :], dg, mask=mask)
        passing += tl.sum(up, 0)
