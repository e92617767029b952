"""What the read side returns: frozen rows made for leaderboards, pages and the search itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .rows import ArchitectureRow, ArchitectureState, StatisticRow, TrialPurpose, TrialRow

SCORE_METRICS = (
    "val_bpb",
    "test_bpb",
    "tokens_per_s",
    "step_time_s",
    "decode_time_s",
    "peak_memory_bytes",
)
RECALL = "recall_"  # and a task's name: the metric of its trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One finished trial with its final measurements; None where it has none."""

    trial_id: str
    architecture_id: str
    task: str
    rung: int
    tokens: int
    seed: int
    learning_rate: float
    purpose: TrialPurpose | None
    finished_at: datetime
    val_bpb: float | None
    test_bpb: float | None  # on the shard that is opened for finalists alone
    tokens_per_s: float | None
    step_time_s: float | None
    decode_time_s: float | None
    peak_memory_bytes: float | None
    recall: float | None  # of its task: the share of right answers

    def metrics(self) -> dict[str, float | None]:
        """The measurements under the store's names."""
        return {name: getattr(self, name) for name in SCORE_METRICS}


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardRow:
    """One architecture with its best supported number.

    `val_bpb` is the mean over seeds at the highest rung with a score, at the learning rate where
    that mean is lowest; `trial_ids` are the trials behind it in order of seed, `trial_id` the
    first. A task's `recall` is a mean over seeds too, at the rate where it is highest. Rejected and
    quarantined architectures show no scores. The intervals of `val_bpb` and `delta`, `rank`,
    `fitness` (where the run has one), `pareto_rank` and `tie` (a group of rows within the noise
    floor of each other) are the driver's statistics for this rung.
    """

    id: str
    number: int
    name: str
    motivation: str
    origin: str
    state: ArchitectureState
    is_baseline: bool
    is_reference: bool
    family: str | None
    pattern: str
    rung: int | None = None
    tokens: int | None = None
    val_bpb: float | None = None
    val_bpb_values: tuple[float, ...] = ()
    val_bpb_low: float | None = None
    val_bpb_high: float | None = None
    n_seeds: int = 0
    learning_rate: float | None = None
    val_bpb_by_rung: dict[int, float] = field(default_factory=dict)
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    test_bpb: float | None = None
    rank: int | None = None
    fitness: float | None = None
    pareto_rank: int | None = None
    tie: int | None = None
    tokens_per_s: float | None = None
    step_time_s: float | None = None
    decode_time_s: float | None = None
    peak_memory_bytes: float | None = None
    recall: dict[str, float] = field(default_factory=dict)  # by task: the share of right answers
    n_params: int | None = None
    flops_per_token: float | None = None
    state_bytes: int | None = None
    trial_id: str | None = None
    trial_ids: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    reason: str | None = None
    rejected_by: str | None = None
    created_at: datetime

    def measured(self, metric: str) -> float | None:
        """A number by its metric's name, such as "state_bytes" or "recall_mqar"."""
        if metric.startswith(RECALL):
            return self.recall.get(metric.removeprefix(RECALL))
        value: float | None = getattr(self, metric)
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRow:
    gate: str
    stage: str
    position: int
    passed: bool | None  # None: it does not apply or could not run; `reason` says why
    reason: str | None
    evidence: dict[str, Any]
    duration_s: float | None
    sandbox: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialDetail:
    """A trial with its final metrics and, by name, its curves of (step, value)."""

    trial: TrialRow
    metrics: dict[str, float | None]
    curves: dict[str, tuple[tuple[int, float | None], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relative:
    """A parent or child; `kind` says how the younger came from the older."""

    id: str
    number: int
    name: str
    state: ArchitectureState
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMCallRow:
    id: str
    run_id: str
    architecture_id: str | None
    role: str
    model: str
    prompt_hash: str
    reply_hash: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float
    error: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """An analysis of an architecture, or an insight of a run."""

    author: str
    body: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureDetail:
    """Everything stored about one architecture."""

    architecture: ArchitectureRow
    gates: tuple[GateRow, ...]
    trials: tuple[TrialDetail, ...]
    parents: tuple[Relative, ...]
    children: tuple[Relative, ...]
    statistics: dict[str, tuple[StatisticRow, ...]]
    analyses: tuple[Note, ...]
    llm_calls: tuple[LLMCallRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Funnel:
    """How far the run's candidates got; baselines are counted apart.

    `proposed` includes duplicates and invalid proposals. `sound` passed all gates; of these some
    wait or are in `training`, `measured` have a score, `failed` ended without one, and the score
    of the `quarantined` is too good to be believed before an audit.
    """

    proposed: int
    duplicates: int
    invalid: int
    in_gates: int
    rejected: dict[str, int]  # by the check that rejected
    sound: int
    training: int
    measured: int
    failed: int
    quarantined: int
    baselines: int
    baselines_measured: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BestPoint:
    """The n-th measured candidate of a rung and the best score once it was in."""

    n: int
    time: datetime
    architecture_id: str
    name: str
    val_bpb: float
    best_val_bpb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageNode:
    id: str
    number: int
    name: str
    origin: str
    state: ArchitectureState
    is_reference: bool
    rung: int | None
    val_bpb: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageEdge:
    parent_id: str
    child_id: str
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a run has used of its budgets; `usd` is None if no call's cost is known."""

    gpu_seconds: float
    usd: float | None
    candidates: int
