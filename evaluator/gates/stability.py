"""bfloat16 keeps answers and gradients finite on large inputs, and near float32's on usual ones."""

from __future__ import annotations

from typing import Any

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import draw, ragged_length, rms_difference
from .probe import MixerProbe, Precision, Step

_SCALES = (1.0, 10.0, 100.0)
_OUTLIER = 1000.0  # of one channel, as trained residual streams have
_OUTLIER_CHANNEL = 3
# Of the spread of answers at RMS 1: 0.7 % typical, 3.7 % at most over the library and 300 genomes.
_MAX_DISAGREEMENT = 0.25
_NAMES: dict[Precision, str] = {"bf16": "bfloat16", "fp32": "float32"}


def stability(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Each kind of input is one row of a batch, under autocast, forward and backward."""
    length, d_model = ragged_length(probe.facts.seq_len), probe.facts.d_model
    kinds = [f"RMS {scale:g}" for scale in _SCALES] + [f"one channel of {_OUTLIER:g}"]
    x, cotangent = (draw(generator, len(kinds), length, d_model) for _ in range(2))
    x[: len(_SCALES)] *= torch.tensor(_SCALES)[:, None, None]
    x[-1, :, _OUTLIER_CHANNEL % d_model] *= _OUTLIER

    evidence: dict[str, Any] = {"inputs": kinds, "limit": _MAX_DISAGREEMENT}
    steps: dict[Precision, Step] = {}
    for precision, name in _NAMES.items():
        steps[precision] = probe.step(x, cotangent, precision)
        if flaw := _first_infinite(steps[precision], kinds):
            return _failed(f"In {name} {flaw}: keep every intermediate value bounded.", evidence)
    gap = rms_difference(steps["fp32"].y[:1], steps["bf16"].y[:1])
    evidence["disagreement"] = gap
    if gap > _MAX_DISAGREEMENT:
        reason = (
            f"In bfloat16 the answer is off by {gap:.0%} of its RMS from float32's at RMS 1: "
            "compute decays, sums over time and norms in float32."
        )
        return _failed(reason, evidence)
    return GateResult(gate="stability", passed=True, evidence=evidence)


def _first_infinite(step: Step, kinds: list[str]) -> str | None:
    for what, tensor in (("the output", step.y), ("the gradient of x", step.x_gradient)):
        is_bad = ~tensor.isfinite().flatten(1).all(dim=1)  # [rows]
        if is_bad.any():
            return f"{what} is not finite for inputs of {kinds[int(is_bad.nonzero()[0])]}"
    infinite = [name for name, gradient in step.gradients.items() if not gradient.is_finite]
    return f"the gradient of {infinite[0]} is not finite" if infinite else None


def _failed(reason: str, evidence: dict[str, Any]) -> GateResult:
    return GateResult(gate="stability", passed=False, reason=reason, evidence=evidence)
