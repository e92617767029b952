"""The gates in their order, and the loop that runs them over a mixer's layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from ...config import GateConfig
from ..results import GateResult, Stage
from .batch import batch
from .buffers import buffers
from .causality import causality
from .cost import cost
from .gradients import gradients
from .prefix import prefix
from .probe import MixerProbe, ProbeFailed
from .replay import replay
from .shape import shape
from .stability import stability
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
    "buffers": buffers,
    "streaming": streaming,
    "stability": stability,
    "cost": cost,
}
# What the device's kernels and precision can change. Buffers do not depend on them, and counted
# work is compared with time on a CPU alone.
DEVICE_GATES: Mapping[str, Gate] = {
    name: gate for name, gate in GATES.items() if name not in ("buffers", "cost")
}
# What training can change: a gate that it opened, a counter that ran on.
TRAINED_GATES: Mapping[str, Gate] = {
    name: GATES[name] for name in ("replay", "batch", "causality", "prefix", "streaming")
}


# A token whose terms nearly cancel blows rounding up, the more seldom the larger: a difference of
# less than this many limits must show again on other inputs, as every leak does.
_CLEAR = 30.0
_CONFIRMATIONS = 2
# Where other shapes or forms are compared, a mixer may blow their rounding up on every input (a
# steep function of a long sum). Then float64 tells: rounding is gone there, a past that is lost is
# not. A mixer may well answer otherwise in float64, so no more than this many limits are excused,
# and nothing where later tokens must change nothing at all.
_EXCUSED = 10.0
_COMPARE_FORMS = ("prefix", "streaming")


def run_gates(
    probe: MixerProbe, config: GateConfig, seed: int, gates: Mapping[str, Gate] = GATES
) -> list[GateResult]:
    """One result a gate, up to the first failure. The inputs are drawn from `seed`."""
    return run_gates_on_layers([probe], config, seed, gates)


def run_gates_on_layers(
    probes: Sequence[MixerProbe],
    config: GateConfig,
    seed: int,
    gates: Mapping[str, Gate] = GATES,
    *,
    is_whole: bool = False,
    stage: Stage = "cpu",
) -> list[GateResult]:
    """run_gates for a mixer's instances in several layers: a gate passes if every layer passes.

    `is_whole` goes on after a failure; once the candidate's process is gone, what is left gives
    results that are neither passed nor failed.
    """
    results: list[GateResult] = []
    ended_in: str | None = None
    for name, gate in gates.items():
        if ended_in is not None:
            reason = f"Could not run: the candidate's process ended in the gate {ended_in}."
            results.append(GateResult(gate=name, passed=None, reason=reason, stage=stage))
            continue
        started = time.perf_counter()
        result, is_final = _over_layers(name, gate, probes, config, seed)
        duration_s = time.perf_counter() - started
        results.append(replace(result, stage=stage, duration_s=duration_s))
        if is_final:
            ended_in = name
        if result.passed is False and not is_whole:
            break
    return results


def _over_layers(
    name: str, gate: Gate, probes: Sequence[MixerProbe], config: GateConfig, seed: int
) -> tuple[GateResult, bool]:
    """The first layer's failing result, or else the last layer's; whether the process is gone."""
    for probe in probes:
        is_final = False
        try:
            result = _confirmed(gate, probe, config, seed)
        except ProbeFailed as failure:
            reason = (
                f"The mixer gave no usable answer ({failure.kind}): {failure.message.rstrip('.')}."
            )
            evidence = {"kind": failure.kind}
            result = GateResult(gate=name, passed=False, reason=reason, evidence=evidence)
            is_final = failure.is_final
        result = replace(result, evidence={**result.evidence, "layer": probe.facts.layer_index})
        if result.passed is False:
            break
    return result, is_final


def _confirmed(gate: Gate, probe: MixerProbe, config: GateConfig, seed: int) -> GateResult:
    """The gate's result; one that could be rounding stands only if other draws fail as well."""
    for draw in range(1 + _CONFIRMATIONS):
        # Each gate draws from the seed anew, so that leaving one out changes no other.
        result = gate(probe, config, torch.Generator().manual_seed(seed + draw))
        if result.passed is not False or not _is_below(_CLEAR, result):
            return result
    if result.gate in _COMPARE_FORMS and _is_below(_EXCUSED, result):
        return _in_float64(result, gate, probe, config, seed)
    return result


def _in_float64(
    failed: GateResult, gate: Gate, probe: MixerProbe, config: GateConfig, seed: int
) -> GateResult:
    """What float64 says, with float32's difference as evidence; `failed` where it says the same."""
    try:
        result = gate(probe.in_float64(), config, torch.Generator().manual_seed(seed))
    except ProbeFailed as failure:
        if failure.is_final:
            raise
        return failed  # a mixer that computes in float32 alone
    if not result.passed:
        return failed
    evidence = {**result.evidence, "relative_in_float32": failed.evidence["relative"]}
    return replace(result, evidence=evidence)


def _is_below(limits: float, result: GateResult) -> bool:
    """Whether the result's difference is below so many limits."""
    relative, limit = result.evidence.get("relative"), result.evidence.get("limit")
    return relative is not None and limit is not None and relative < limits * limit
