"""What leaves the judge: plain values that travel from a worker to the driver and into the store.

Nothing here imports torch or candidate code. A missing number is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

TrialStatus = Literal[
    "done", "diverged", "timeout", "oom", "crashed", "protocol", "noncausal", "infra"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """One check of one candidate; `evidence` holds the numbers behind the verdict (JSON)."""

    gate: str
    passed: bool
    reason: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """All gates of one candidate, and the sizes they measured on the way.

    `state_bytes` is one sequence's state over all layers after the profile's seq_len;
    `state_bytes_at` gives it at several lengths (it grows only under full attention).
    """

    results: tuple[GateResult, ...]
    mlp_width: int | None = None
    n_params: int | None = None
    state_bytes: int | None = None
    state_bytes_at: dict[int, int] = field(default_factory=dict)
    wall_s: float | None = None
    infra_error: str | None = None

    @property
    def is_sound(self) -> bool:
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def failure(self) -> GateResult | None:
        return next((result for result in self.results if not result.passed), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One training: which code, how large, on what, from which seed and rate.

    `task` is "corpus" (language modelling up to `tokens`, continued from `checkpoint`) or "mqar".
    """

    source: str
    pattern: str
    mlp_width: int
    task: str
    rung: int
    tokens: int
    seed: int
    learning_rate: float
    checkpoint: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What one training gave. `metrics` uses the store's names: val_bpb, tokens_per_s, ...

    `curve` holds (tokens seen, training loss in nats) as the child reported it: shown, not ranked.
    `checkpoint` continues training before its cooldown, `weights` are the scored ones: safetensors.
    """

    status: TrialStatus
    reason: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    checkpoint: bytes | None = None
    weights: bytes | None = None
    wall_s: float | None = None
    device: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
