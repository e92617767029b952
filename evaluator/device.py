"""What the search's device means for a child: the precision it computes in and what it may use."""

from __future__ import annotations

from typing import Any

from ..config import RunConfig
from .gates.probe import Precision
from .sandbox.limits import MIB, Limits


def precision_on(config: RunConfig, device: str) -> Precision:
    """The training's on a GPU; a processor stays in float32."""
    return config.training.precision if device == "cuda" else "fp32"


def limits_on(config: RunConfig, device: str, wall_s: float, **more: Any) -> Limits:
    """Limits of one child; `more` are further fields of Limits."""
    is_cuda = device == "cuda"
    return Limits(
        wall_s=wall_s,
        memory_bytes=config.workers.memory_limit_mib * MIB,
        caps_address_space=not is_cuda,
        gpu_memory_fraction=1.0 / config.workers.trials_at_once if is_cuda else None,
        **more,
    )
