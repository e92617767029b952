"""python -m linearch.kernels.bench: ms per operation, forward and forward + backward.

The shape is that of the default CPU search: batch 8, 128 tokens, width 64 in 2 heads, one thread,
float32. Operations take turns, so that each finds the caches as a training step would; the time is
CPU time, which other processes on the machine disturb least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import quantiles
from typing import Any

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

Call = Callable[[], Any]  # returns the output, or it and a state


def operations(value_dim: int) -> Iterator[tuple[str, list[Tensor], Call]]:
    """Name, leaves and call of each operation on fresh random inputs."""
    rows, width = (BATCH, LENGTH, HEADS), HEADS * KEY_DIM
    q, k = _unit(*rows, KEY_DIM), _unit(*rows, KEY_DIM)
    v, beta = _unit(*rows, value_dim), torch.rand(rows).requires_grad_()
    constant, scalar, channel = _gate(HEADS), _gate(*rows), _gate(*rows, KEY_DIM)
    by_value, u = _gate(*rows, value_dim), torch.rand(HEADS, KEY_DIM).requires_grad_()
    decay, delta = partial(chunk_decay, q, k, v), partial(chunk_delta, q, k, v, beta)
    yield "decay none", [q, k, v], decay
    yield "decay none, normalised", [q, k, v], partial(decay, normalise=True)
    yield "decay constant", [q, k, v, constant], partial(decay, constant)
    yield "decay scalar", [q, k, v, scalar], partial(decay, scalar)
    yield "decay channel", [q, k, v, channel], partial(decay, channel)
    yield "decay value", [q, k, v, by_value], partial(decay, value_log_decay=by_value)
    yield "decay channel, bonus", [q, k, v, channel, u], partial(decay, channel, bonus=u)
    yield "delta none", [q, k, v, beta], delta
    yield "delta scalar", [q, k, v, beta, scalar], partial(delta, scalar)
    yield "delta channel", [q, k, v, beta, channel], partial(delta, channel)
    yield "oja scalar", [q, k, v, beta, scalar], partial(chunk_oja, q, k, v, beta, scalar)
    yield "attention full", [q, k, v], partial(causal_attention, q, k, v)
    yield "attention window 32", [q, k, v], partial(causal_attention, q, k, v, window=32)
    x, gate = _unit(BATCH, LENGTH, width), _unit(BATCH, LENGTH, width)
    forget, taps, weight = _gate(BATCH, LENGTH, width), _unit(width, 4), _unit(width)
    yield "scan", [x, forget], partial(scan, x, forget)
    yield "short convolution", [x, taps], partial(short_convolution, x, taps, activation="silu")
    yield "norm", [x, weight], partial(rms_norm, x, weight)
    yield "norm, gated", [x, weight, gate], partial(rms_norm, x, weight, gate=gate)
    hidden, head = _unit(BATCH * LENGTH, width), _unit(VOCABULARY, width)
    targets = torch.randint(0, VOCABULARY, (BATCH * LENGTH,))
    yield "head and loss", [hidden, head], partial(linear_cross_entropy, hidden, head, targets)


def _unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape), dim=-1).requires_grad_()


def _gate(*shape: int) -> Tensor:
    """Log decays between -1 and 0."""
    return torch.rand(shape).neg_().requires_grad_()


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
    weights = torch.randn_like(_output(call()))

    def forward() -> None:
        with torch.no_grad():
            call()

    def forward_and_backward() -> None:
        torch.autograd.grad(_output(call()), leaves, weights)

    return forward, forward_and_backward


def _output(returned: Any) -> Tensor:
    output: Tensor = returned[0] if isinstance(returned, tuple) else returned
    return output


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
