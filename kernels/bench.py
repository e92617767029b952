"""python -m linearch.kernels.bench: ms per operation, forward and forward + backward.

The shape is that of the default CPU search: batch 8, 128 tokens, width 64 in 2 heads, one thread,
float32. Operations take turns, so that each finds the caches as a training step would; the time is
CPU time, which other processes on the machine disturb least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import torch
import torch.nn.functional as F
from torch import Tensor

from . import (
    causal_attention,
    chunk_decay,
    chunk_delta,
    chunk_oja,
    linear_cross_entropy,
    rms_norm,
    scan,
    short_convolution,
)

BATCH, LENGTH, HEADS, KEY_DIM, VOCABULARY = 8, 128, 2, 32, 256

Call = Callable[[], Tensor]


def operations(value_dim: int) -> Iterator[tuple[str, list[Tensor], Call]]:
    """Name, leaves and call of each operation on fresh random inputs."""
    rows, width = (BATCH, LENGTH, HEADS), HEADS * KEY_DIM
    q, k = (F.normalize(torch.randn(*rows, KEY_DIM), dim=-1).requires_grad_() for _ in range(2))
    v = F.normalize(torch.randn(*rows, value_dim), dim=-1).requires_grad_()
    beta = torch.rand(rows).requires_grad_()
    per_head, per_token = (-torch.rand(s) for s in ((HEADS,), rows))
    per_channel, per_value = -torch.rand(*rows, KEY_DIM), -torch.rand(*rows, value_dim)
    gates = [g.requires_grad_() for g in (per_head, per_token, per_channel, per_value)]
    u = torch.rand(HEADS, KEY_DIM).requires_grad_()
    qkv = [q, k, v]
    yield "decay none", qkv, lambda: chunk_decay(q, k, v)[0]
    yield "decay none, normalised", qkv, lambda: chunk_decay(q, k, v, normalise=True)[0]
    for name, gate in zip(("constant", "scalar", "channel"), gates, strict=False):
        yield f"decay {name}", [*qkv, gate], lambda g=gate: chunk_decay(q, k, v, g)[0]
    yield "decay value", [*qkv, gates[3]], lambda: chunk_decay(q, k, v, value_log_decay=gates[3])[0]
    yield (
        "decay channel, bonus",
        [*qkv, gates[2], u],
        lambda: chunk_decay(q, k, v, gates[2], bonus=u)[0],
    )
    yield "delta none", [*qkv, beta], lambda: chunk_delta(q, k, v, beta)[0]
    for name, gate in zip(("scalar", "channel"), gates[1:], strict=False):
        yield f"delta {name}", [*qkv, beta, gate], lambda g=gate: chunk_delta(q, k, v, beta, g)[0]
    yield "oja scalar", [*qkv, beta, gates[1]], lambda: chunk_oja(q, k, v, beta, gates[1])[0]
    yield "attention full", qkv, lambda: causal_attention(q, k, v)[0]
    yield "attention window 32", qkv, lambda: causal_attention(q, k, v, window=32)[0]
    x, gate = (torch.randn(BATCH, LENGTH, width).requires_grad_() for _ in range(2))
    decay = (-torch.rand(BATCH, LENGTH, width)).requires_grad_()
    taps, weight = torch.randn(width, 4).requires_grad_(), torch.ones(width).requires_grad_()
    yield "scan", [x, decay], lambda: scan(x, decay)[0]
    yield "short convolution", [x, taps], lambda: short_convolution(x, taps, activation="silu")[0]
    yield "norm", [x, weight], lambda: rms_norm(x, weight)
    yield "norm, gated", [x, weight, gate], lambda: rms_norm(x, weight, gate=gate)
    head = torch.randn(VOCABULARY, width).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (BATCH * LENGTH,))
    yield "head and loss", [x, head], lambda: linear_cross_entropy(x.flatten(0, 1), head, targets)


def measure(value_dim: int, seconds: float) -> dict[str, tuple[float, float]]:
    """The 10th percentile of ms per call, forward and forward + backward, by operation."""
    cases = [(name, *_timed(leaves, call)) for name, leaves, call in operations(value_dim)]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name, *_ in cases}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[cases[0][0]][0]) < 3:
        for name, *both in cases:
            for run, spent in zip(both, times[name], strict=True):
                start = time.process_time()
                run()
                spent.append(1e3 * (time.process_time() - start))
    return {name: (_tenth(forward), _tenth(both)) for name, (forward, both) in times.items()}


def _timed(leaves: list[Tensor], call: Call) -> tuple[Callable[[], None], Callable[[], None]]:
    weights = torch.randn_like(call())

    def forward() -> None:
        with torch.no_grad():
            call()

    def forward_and_backward() -> None:
        torch.autograd.grad(call(), leaves, weights)

    return forward, forward_and_backward


def _tenth(values: list[float]) -> float:
    return quantiles(values, n=10)[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m linearch.kernels.bench")
    parser.add_argument("--value-dim", type=int, default=KEY_DIM, help="V; K is 32")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'operation':24} {'forward':>9} {'+ backward':>11}  ms")
    for name, (forward, both) in measure(arguments.value_dim, arguments.seconds).items():
        print(f"{name:24} {forward:9.2f} {both:11.2f}")


if __name__ == "__main__":
    main()
