"""The values that leave the store: frozen rows without any tie to a connection.

Field names are column names; `columns_of` selects them in the order in which `rows_of` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, TypeVar

from .schema import Base

RunState = Literal["running", "finished", "interrupted", "failed"]
ArchitectureState = Literal["proposed", "rejected", "sound", "measured", "failed", "quarantined"]
TrialState = Literal["queued", "running", "done", "failed"]
# Why a trial is run: a baseline on its way up, a candidate's first rung, a rung reached by score or
# by lot, a fresh seed for the noise or of the elite, a task's probe.
TrialPurpose = Literal["baseline", "entry", "promoted", "random", "noise", "fresh", "probe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    id: str
    created_at: datetime
    name: str | None
    state: RunState
    stop_reason: str | None
    config: dict[str, Any]
    versions: dict[str, Any]
    seed: int
    elapsed_s: float | None
    owner: str | None
    owner_epoch: int
    heartbeat_at: datetime | None
    revision: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureRow:
    id: str
    run_id: str
    number: int
    name: str
    motivation: str
    expectation: str
    origin: str
    source: str
    source_hash: str
    normalised_hash: str
    pattern: str
    family: str | None
    genome: dict[str, Any] | None
    is_reference: bool
    state: ArchitectureState
    reason: str | None
    rejected_by: str | None
    released_at: datetime | None
    mlp_width: int | None
    n_params: int | None
    flops_per_token: float | None
    state_bytes: int | None
    state_bytes_at: dict[int, int] | None
    created_at: datetime

    @property
    def is_baseline(self) -> bool:
        return self.origin == "baseline"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    id: str
    run_id: str
    architecture_id: str
    task: str
    rung: int
    tokens: int
    seed: int
    learning_rate: float
    purpose: TrialPurpose | None
    state: TrialState
    status: str | None
    reason: str | None
    alarm: str | None
    owner: str | None
    epoch: int
    heartbeat_at: datetime | None
    attempts: int
    gpus: float | None
    device: str | None
    sandbox: str | None
    environment: dict[str, Any] | None
    wall_s: float | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    checkpoint_hash: str | None
    weights_hash: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    id: int
    run_id: str
    time: datetime
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticRow:
    """One computed number with its interval; given to and taken from the store alike."""

    architecture_id: str | None = None
    rung: int | None = None
    metric: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    detail: dict[str, Any] | None = None


_Row = TypeVar("_Row")


def columns_of(table: type[Base], row_type: type) -> list[Any]:
    """The columns of `table` that `row_type` is made of, in order of its fields."""
    return [getattr(table, field.name) for field in fields(row_type)]


def rows_of(row_type: type[_Row], selected: Iterable[Sequence[Any]]) -> tuple[_Row, ...]:
    """One `row_type` for each selected tuple, whose values come in order of its fields."""
    names = tuple(field.name for field in fields(row_type))  # type: ignore[arg-type]
    return tuple(row_type(**dict(zip(names, row, strict=True))) for row in selected)
