"""What leaves the judge: plain values that travel from a worker to the driver and into the store.

Nothing here imports torch or candidate code. A missing number is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

TrialStatus = Literal[
    "done", "diverged", "timeout", "stalled", "oom", "crashed", "protocol", "noncausal", "unsound",
    "infra",
]  # fmt: skip
# Where a gate ran: on the processor in float32, on the search's device in the training's precision,
# or there on the weights that a training left.
Stage = Literal["cpu", "device", "trained"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """One check of one candidate; `evidence` holds the numbers behind the verdict (JSON).

    `passed` is None where the check does not apply or could not run; `reason` then says why.
    """

    gate: str
    passed: bool | None
    reason: str | None = None
    stage: Stage = "cpu"
    evidence: dict[str, Any] = field(default_factory=dict)
    duration_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """All gates of one candidate, and the sizes they measured on the way.

    `flops_per_token` is a training step's, forward and backward; `state_bytes` is one sequence's
    state over all layers after the profile's seq_len; `state_bytes_at` gives it at several lengths
    (it grows only under full attention). `sandbox` is the level of containment that it ran under;
    `gpu_share` the most of a GPU's memory that it was seen to take, None where that is not known.
    """

    results: tuple[GateResult, ...]
    mlp_width: int | None = None
    n_params: int | None = None
    flops_per_token: float | None = None
    state_bytes: int | None = None
    state_bytes_at: dict[int, int] = field(default_factory=dict)
    wall_s: float | None = None
    sandbox: str | None = None
    gpu_share: float | None = None
    infra_error: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether something was checked and nothing failed."""
        return any(result.passed for result in self.results) and self.failure is None

    @property
    def failure(self) -> GateResult | None:
        return next((result for result in self.results if result.passed is False), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One training: which code, how large, on what, from which seed and rate.

    `task` is "corpus" (language modelling up to `tokens`, continued from `checkpoint`) or the name
    of a synthetic one; `is_reference` is for trusted code to say alone; `state_bytes` is what the
    judge measured, which the trained model's state may not exceed (None: not compared).
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
    is_reference: bool = False
    state_bytes: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What one training gave. `metrics` uses the store's names: val_bpb, tokens_per_s, ...; of a
    training that ended early last_step alone, the last that was heard of.

    `curve` holds (tokens seen, training loss in nats) as the child reported it: shown, not ranked.
    `checkpoint` continues training before its cooldown, and is there also where training ended
    later than that without a score; `weights` are the scored ones: safetensors. `window_nats` are
    the summed losses of the held-out windows, in the order that all of a run's trials share; None
    off the corpus. `gates` ran on those weights. `alarm` says why the score is too good to be
    believed unseen. `sandbox` and `gpu_share` are as of a Judgement.
    """

    status: TrialStatus
    reason: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    window_nats: tuple[float, ...] | None = None
    gates: tuple[GateResult, ...] = ()
    alarm: str | None = None
    checkpoint: bytes | None = None
    weights: bytes | None = None
    wall_s: float | None = None
    device: str | None = None
    sandbox: str | None = None
    gpu_share: float | None = None
    environment: dict[str, Any] = field(default_factory=dict)
