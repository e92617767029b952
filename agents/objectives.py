"""What can be optimised and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from ..db import RECALL
from ..errors import ConfigError

Direction: TypeAlias = Literal["min", "max"]
Point: TypeAlias = "tuple[float | None, ...]"

OBJECTIVES: dict[str, Direction] = {
    "val_bpb": "min",
    "state_bytes": "min",
    "tokens_per_s": "max",
    "decode_time_s": "min",
    "peak_memory_bytes": "min",
    "n_params": "min",
    "flops_per_token": "min",
}


def check_objectives(names: Sequence[str], tasks: Sequence[str] = ()) -> None:
    """Raises ConfigError for an objective that is not measured, and for an empty list.

    tasks: those that are run; each is an objective as "recall_" and its name.
    """
    known = [*OBJECTIVES, *(f"{RECALL}{task}" for task in tasks)]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        given = f"unknown objective {unknown[0]!r}" if unknown else "no objective is given"
        raise ConfigError(f"{given}; choose from {', '.join(known)}.")


def direction_of(metric: str) -> Direction | None:
    """Which way is better; None where neither is."""
    return "max" if metric.startswith(RECALL) else OBJECTIVES.get(metric)


def to_point(metrics: Mapping[str, float | None], objectives: Sequence[str]) -> Point:
    """The objectives of one architecture, signed so that less is better; None if not measured."""
    return tuple(_signed(metrics.get(name), direction_of(name)) for name in objectives)


def _signed(value: float | None, direction: Direction | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    return -value if direction == "max" else value
