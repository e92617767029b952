"""One backward pass reaches every parameter with a finite gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import draw, ragged_length
from .probe import Gradient, MixerProbe

# A clamp or a ReLU can hold one small parameter still on random input; a matrix that stays at
# exactly zero is dead weight, there to fill the parameter budget.
_MAX_STILL_SHARE = 0.01
_MAX_NAMES = 5


def gradients(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """In train mode at a ragged length, against a random cotangent."""
    length = ragged_length(probe.facts.seq_len)
    x, cotangent = (draw(generator, 2, length, probe.facts.d_model) for _ in range(2))
    found = probe.gradients(x, cotangent)

    infinite = [name for name, gradient in found.items() if not gradient.is_finite]
    missing = [name for name, gradient in found.items() if gradient.norm is None]
    still = [name for name, gradient in found.items() if gradient.norm == 0]
    still_share = _share(found, still)
    evidence: dict[str, Any] = {"n_parameters": len(found), "still_share": still_share}
    if infinite:
        return _failed(f"The gradient of {_listed(infinite)} is not finite.", infinite, evidence)
    if missing:
        reason = f"No gradient reaches {_listed(missing)}: remove it or use it."
        return _failed(reason, missing, evidence)
    if still_share > _MAX_STILL_SHARE:
        reason = (
            f"The output does not depend on {_listed(still)}: {still_share:.1%} of the parameters "
            "get a gradient of exactly zero."
        )
        return _failed(reason, still, evidence)
    return GateResult(gate="gradients", passed=True, evidence=evidence)


def _share(found: Mapping[str, Gradient], names: list[str]) -> float:
    total = sum(gradient.numel for gradient in found.values())
    return sum(found[name].numel for name in names) / total if total else 0.0


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _failed(reason: str, names: list[str], evidence: dict[str, Any]) -> GateResult:
    return GateResult(
        gate="gradients",
        passed=False,
        reason=reason,
        evidence={**evidence, "parameters": names[:_MAX_NAMES]},
    )
