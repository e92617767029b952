"""Prints, by baseline, which kernels its training step launches that a run would not have compiled.

Launches are looked up and not made, so no GPU is needed, and nothing is compiled either. In a
process of its own, because Triton's driver is replaced for good.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import triton

from linearch.config import BudgetConfig, ModelConfig, RunConfig, SandboxConfig, TrainingConfig
from linearch.evaluator.kernel_cache import kernel_cases
from linearch.kernels import forms, linear_cross_entropy
from linearch.kernels.triton import warm
from linearch.search_space import layers
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.library import BASELINES, baseline_source
from linearch.search_space.loading import load_mixer_class

CONFIG = RunConfig(
    model=ModelConfig(d_model=64, n_heads=2),
    training=TrainingConfig(precision="bf16"),
    sandbox=SandboxConfig(profile="compile"),
)
# And without candidates, for which less is compiled.
BASELINES_ALONE = CONFIG.model_copy(update={"budget": BudgetConfig(max_candidates=0)})
asked: set[tuple[str, str]] = set()


def note(*, key: str, fn: Any, **_: Any) -> bool:
    asked.add((fn.name, key))
    return True  # compiles nothing


def look_up_instead_of_launching() -> None:
    triton.runtime.driver.set_active(warm._Target(90))
    triton.knobs.runtime.jit_cache_hook = note

    def launcher(kernel: Any, grid: Any) -> Any:
        return lambda *args, **options: kernel.run(*args, grid=grid, warmup=True, **options)

    triton.JITFunction.__getitem__ = launcher


def as_on_a_gpu(
    requested: str | None,
    steps: int | None = None,
    *,
    fused_on: torch.device | None = None,
    fused_is_best: bool = True,
) -> str:
    fuses = fused_on is not None and fused_is_best
    return requested or ("naive" if steps == 1 else "triton" if fuses else "chunked")


def kernels_of(run: Callable[[], object]) -> set[tuple[str, str]]:
    asked.clear()
    run()
    return set(asked)


def train_step(name: str) -> None:
    sizes = {"vocab_size": 256, "d_model": 64, "n_layers": 2, "n_heads": 2, "mlp_width": 128}
    model = Backbone(BackboneConfig(**sizes), load_mixer_class(baseline_source(name), name))
    tokens = torch.zeros(8, 128, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, _ = model(tokens)
        head = model.embedding.weight
        loss = linear_cross_entropy(hidden.flatten(0, 1), head, tokens.flatten())
    torch.autograd.backward(loss)


def foreseen_by(config: RunConfig) -> set[tuple[str, str]]:
    runs = [run for case in kernel_cases(config) for run in warm._runs(case)]
    return kernels_of(lambda: [run() for run in runs])


def main() -> None:
    from linearch.kernels import (
        attention,
        bonus,
        convolution,
        cross_entropy,
        decay,
        delta,
        dplr,
        gating,
        norm,
        pointwise,
        rotary,
        strength,
        token_shift,
    )

    look_up_instead_of_launching()
    modules = (attention, convolution, cross_entropy, decay, delta, dplr, gating, norm)
    modules += (bonus, pointwise, rotary, strength, token_shift)
    for module in modules:
        module.choose_form = as_on_a_gpu
    forms.runs_triton = lambda device: True
    layers._has_fast_widths = lambda x: True
    launched = {name: kernels_of(lambda name=name: train_step(name)) for name in BASELINES}
    found = {}
    for run, config in {"": CONFIG, ", no candidates": BASELINES_ALONE}.items():
        foreseen = foreseen_by(config)
        for name, kernels in launched.items():
            found[name + run] = [len(kernels), sorted({n for n, _ in kernels - foreseen})]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
