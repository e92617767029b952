"""What a mixer holds besides trained parameters is small, and all is there from the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import ask, draw, ragged_length
from .probe import HeldTensor, Inventory, MixerProbe

# Decay rates, slopes, rotary frequencies: tables that no share of a small mixer has room for.
_ALWAYS_ALLOWED = 1024
_MAX_NAMES = 5
_NAME_CHARS = 60


def buffers(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Looks before and after a forward and backward in both modes at two lengths."""
    for length in (ragged_length(probe.facts.seq_len), probe.facts.seq_len):
        x, cotangent = (draw(generator, 1, length, probe.facts.d_model) for _ in range(2))
        ask(probe, x)
        probe.gradients(x, cotangent)
    found = probe.inventory()

    n_trained = sum(held.numel for held in found.now.values() if _is_trained(held))
    fixed = {name: held for name, held in found.now.items() if not _is_trained(held)}
    n_fixed = sum(held.numel for held in fixed.values())
    allowed = max(round(config.max_buffer_share * n_trained), _ALWAYS_ALLOWED)
    evidence: dict[str, Any] = {
        "n_trained": n_trained,
        "n_fixed": n_fixed,
        "allowed": allowed,
        "largest": dict(sorted(_sizes(fixed).items(), key=lambda item: -item[1])[:_MAX_NAMES]),
    }
    if changed := _changed_registers(found):
        evidence["changed"] = changed
        reason = (
            f"{_listed(changed)} appeared, went or changed after the first call: create every "
            "parameter and buffer in __init__ and leave buffers alone."
        )
    elif n_fixed > allowed:
        grew = n_fixed - sum(h.numel for h in found.at_first.values() if not _is_trained(h))
        evidence["grew"] = grew
        reason = (
            f"Buffers, frozen parameters and tensors in plain attributes hold {n_fixed:,} numbers "
            f"({_listed(list(evidence['largest']))}), {grew:,} of them since the first call; "
            f"{allowed:,} are allowed beside {n_trained:,} trained parameters."
        )
    else:
        return GateResult(gate="buffers", passed=True, evidence=evidence)
    return GateResult(gate="buffers", passed=False, reason=reason, evidence=evidence)


def _is_trained(held: HeldTensor) -> bool:
    return held.kind == "parameter" and held.requires_grad


def _changed_registers(found: Inventory) -> list[str]:
    """Registered parameters and buffers that are not as they were; a plain attribute may be."""
    before, after = _registered(found.at_first), _registered(found.now)
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def _registered(listed: Mapping[str, HeldTensor]) -> dict[str, HeldTensor]:
    return {name: held for name, held in listed.items() if held.kind != "attribute"}


def _sizes(listed: Mapping[str, HeldTensor]) -> dict[str, int]:
    return {name[:_NAME_CHARS]: held.numel for name, held in listed.items()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(name[:_NAME_CHARS] for name in names[:_MAX_NAMES]) + more
