"""What the sandbox costs: how long a child takes to start, and how much slower it trains.

`python -m linearch.evaluator.sandbox.bench [--profile P] [--starts N] [--rounds N]` does each with
all layers and with those of the kernel left out, in turns, so that a busy machine slows both. A
step's time is the child's CPU time, which other processes touch least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ...search_space.library import baseline_source
from ..recipe import Recipe
from .containment import CONFINING
from .cpu_time import process_cpu_s
from .handle import Child
from .limits import MIB, Limits
from .supervisor import Sandbox

_LIMITS = Limits(wall_s=300, memory_bytes=2048 * MIB)
_STEPS = 100
_RECIPE = Recipe(
    learning_rate=1e-3,
    total_steps=_STEPS,
    cooldown_steps=10,
    warmup_steps=10,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    clip_norm=1.0,
    precision="fp32",
    seed=0,
    batch_size=8,
    seq_len=128,
)
_MODEL = {
    "vocab_size": 256,
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 2,
    "mlp_width": 128,
    "pattern": "L",
    "window": 64,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--profile", choices=("strict", "compile"), default="strict")
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="linearch-") as folder,
        Sandbox(Path(folder, "on"), profile=options.profile) as on,
        Sandbox(
            Path(folder, "off"), profile=options.profile, without=CONFINING | {"namespaces"}
        ) as off,
    ):
        print(f"layers on: {on.containment.level} ({', '.join(on.containment.layers)})")
        print(f"layers off: {off.containment.level} ({', '.join(off.containment.layers)})")
        _print_starts(on, off, options.starts)
        _print_steps(on, off, options.rounds)


def _print_starts(on: Sandbox, off: Sandbox, n_starts: int) -> None:
    seconds: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(n_starts):
        for name, sandbox in (("on", on), ("off", off)):
            begun = time.perf_counter()
            with sandbox.spawn(_LIMITS) as child:
                child.await_confinement()
                seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        print(f"start, layers {name}: {1e3 * p50:.1f} ms median, {1e3 * p95:.1f} ms p95")


def _print_steps(on: Sandbox, off: Sandbox, n_rounds: int) -> None:
    source = baseline_source("gated_deltanet")
    with on.spawn(_LIMITS) as confined, off.spawn(_LIMITS) as free:
        for child in (confined, free):
            child.call("load", {"source": source, "convention": "linearch"})
            _step_s(child)  # warms up
        pairs = [(_step_s(confined), _step_s(free)) for _ in range(n_rounds)]
    for name, values in zip(("on", "off"), zip(*pairs, strict=True), strict=True):
        print(f"step, layers {name}: {1e3 * statistics.median(values):.3f} ms of CPU time, median")
    costs = [100 * (a / b - 1) for a, b in pairs]
    error = statistics.stdev(costs) / len(costs) ** 0.5
    print(
        f"cost of the layers: {statistics.mean(costs):+.2f} % of a step, standard error {error:.2f}"
    )


def _step_s(child: Child) -> float:
    child.call("build", {"model": _MODEL, "seed": 0})
    begun = process_cpu_s(child.process)
    child.call("practise", {"recipe": asdict(_RECIPE)})
    ended = process_cpu_s(child.process)
    assert begun is not None
    assert ended is not None
    return (ended - begun) / _STEPS


if __name__ == "__main__":
    main()
