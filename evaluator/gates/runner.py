"""The gates in their order, and the loop that runs them until one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from ...config import GateConfig
from ..results import GateResult
from .batch import batch
from .causality import causality
from .gradients import gradients
from .prefix import prefix
from .probe import MixerProbe, ProbeFailed
from .replay import replay
from .shape import shape
from .streaming import streaming

Gate = Callable[[MixerProbe, GateConfig, torch.Generator], GateResult]

# Cheapest and most telling first. Replay and batch stand before the others because these compare
# calls with each other and put their cases into the rows of one batch.
GATES: Mapping[str, Gate] = {
    "shape": shape,
    "replay": replay,
    "batch": batch,
    "causality": causality,
    "prefix": prefix,
    "gradients": gradients,
    "streaming": streaming,
}


def run_gates(
    probe: MixerProbe, config: GateConfig, seed: int, gates: Mapping[str, Gate] = GATES
) -> list[GateResult]:
    """One result a gate, up to the first failure. The inputs are drawn from `seed`."""
    return run_gates_on_layers([probe], config, seed, gates)


def run_gates_on_layers(
    probes: Sequence[MixerProbe], config: GateConfig, seed: int, gates: Mapping[str, Gate] = GATES
) -> list[GateResult]:
    """run_gates for a mixer's instances in several layers: a gate passes if every layer passes."""
    results: list[GateResult] = []
    for name, gate in gates.items():
        started = time.perf_counter()
        result = _first_failure(name, gate, probes, config, seed)
        results.append(replace(result, duration_s=time.perf_counter() - started))
        if not result.passed:
            break
    return results


def _first_failure(
    name: str, gate: Gate, probes: Sequence[MixerProbe], config: GateConfig, seed: int
) -> GateResult:
    """The first layer's failing result, or else the last layer's passing one."""
    for probe in probes:
        try:
            # Each gate draws from the seed anew, so that leaving one out changes no other.
            result = gate(probe, config, torch.Generator().manual_seed(seed))
        except ProbeFailed as failure:
            reason = (
                f"The mixer gave no usable answer ({failure.kind}): {failure.message.rstrip('.')}."
            )
            evidence = {"kind": failure.kind}
            result = GateResult(gate=name, passed=False, reason=reason, evidence=evidence)
        result = replace(result, evidence={**result.evidence, "layer": probe.facts.layer_index})
        if not result.passed:
            break
    return result
