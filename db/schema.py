"""The tables. A change here needs a new migration in `migrations/versions` and a new HEAD.

Missing is NULL, never 0. Times are UTC. Ids are ULIDs, so their order is the order of creation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .columns import CleanText, FiniteNumber, Float32s, LengthTable, RowNumber, UtcTime

HEAD = "0005"  # the newest revision in migrations/versions

Json = Annotated[dict[str, Any], "json"]
LengthsToNumbers = Annotated[dict[int, int], "lengths"]
Numbers = Annotated[tuple[float, ...], "numbers"]

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own convention
        str: CleanText(),
        int: BigInteger(),
        float: FiniteNumber(),
        datetime: UtcTime(),
        Json: JSON(none_as_null=True),
        LengthsToNumbers: LengthTable(),
        Numbers: Float32s(),
    }


class Run(Base):
    """One search. `revision` grows with every change of the run's rows but heartbeats."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    name: Mapped[str | None]
    state: Mapped[str]  # running | finished | interrupted | failed
    stop_reason: Mapped[str | None]
    config: Mapped[Json]
    versions: Mapped[Json]
    seed: Mapped[int]
    elapsed_s: Mapped[float | None]
    owner: Mapped[str | None]  # host:pid of the driver
    owner_epoch: Mapped[int]
    heartbeat_at: Mapped[datetime | None]
    revision: Mapped[int]


class Architecture(Base):
    """A token mixer as source code: a candidate, or a baseline that runs through the same path."""

    __tablename__ = "architectures"
    __table_args__ = (
        UniqueConstraint("run_id", "normalised_hash"),
        UniqueConstraint("run_id", "number"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int]  # counts from 1 within the run
    name: Mapped[str] = mapped_column(index=True)
    motivation: Mapped[str]
    expectation: Mapped[str]
    origin: Mapped[str]  # grammar | random | llm | file | baseline
    source: Mapped[str]
    source_hash: Mapped[str] = mapped_column(index=True)
    normalised_hash: Mapped[str]
    pattern: Mapped[str]
    family: Mapped[str | None]
    genome: Mapped[Json | None]
    is_reference: Mapped[bool]
    state: Mapped[str]  # proposed | rejected | sound | measured | failed | quarantined
    reason: Mapped[str | None]
    rejected_by: Mapped[str | None]
    released_at: Mapped[datetime | None]  # when an audit ended its quarantine for good
    mlp_width: Mapped[int | None]
    n_params: Mapped[int | None]
    flops_per_token: Mapped[float | None]  # of a training step, forward and backward
    state_bytes: Mapped[int | None]
    state_bytes_at: Mapped[LengthsToNumbers | None]
    created_at: Mapped[datetime]


class Parent(Base):
    __tablename__ = "parents"

    child_id: Mapped[str] = mapped_column(ForeignKey("architectures.id"), primary_key=True)
    parent_id: Mapped[str] = mapped_column(
        ForeignKey("architectures.id"), primary_key=True, index=True
    )
    kind: Mapped[str]  # mutation | crossover | inspiration


class GateResult(Base):
    __tablename__ = "gate_results"

    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id"), primary_key=True)
    gate: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)  # cpu | device | trained
    position: Mapped[int]  # the order in which the gates ran, from 0
    passed: Mapped[bool | None]  # NULL: it does not apply or could not run
    reason: Mapped[str | None]
    evidence: Mapped[Json]
    duration_s: Mapped[float | None]
    sandbox: Mapped[str | None]  # the level of containment it ran under


class Trial(Base):
    """One training and scoring. `epoch` grows with each start and fences off stale owners."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint(
            "run_id", "architecture_id", "task", "rung", "seed", "learning_rate", name="uq_trials"
        ),
        Index("ix_trials_run_id_state", "run_id", "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id"), index=True)
    task: Mapped[str]  # corpus | mqar
    rung: Mapped[int]
    tokens: Mapped[int]
    seed: Mapped[int]
    learning_rate: Mapped[float]
    purpose: Mapped[str | None]  # rows.TrialPurpose; NULL before it was written down
    state: Mapped[str]  # queued | running | done | failed
    status: Mapped[str | None]  # the evaluator's TrialStatus once it ended
    reason: Mapped[str | None]
    alarm: Mapped[str | None]  # why its score is too good to be believed unseen
    owner: Mapped[str | None]
    epoch: Mapped[int]
    heartbeat_at: Mapped[datetime | None]
    attempts: Mapped[int]
    gpus: Mapped[float | None]  # the share of a GPU it holds; NULL off a GPU
    device: Mapped[str | None]
    sandbox: Mapped[str | None]  # the level of containment it ran under
    environment: Mapped[Json | None]
    wall_s: Mapped[float | None]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    checkpoint_hash: Mapped[str | None]
    weights_hash: Mapped[str | None]
    window_nats: Mapped[Numbers | None]  # of the held-out windows; NULL off the corpus


class Metric(Base):
    """A trial's measurements: finals have no step, points of a curve have theirs (tokens seen)."""

    __tablename__ = "metrics"
    __table_args__ = (
        UniqueConstraint("trial_id", "name", "step"),
        Index(  # NULL steps are distinct to the constraint above
            "uq_metrics_final",
            "trial_id",
            "name",
            unique=True,
            sqlite_where=text("step IS NULL"),
            postgresql_where=text("step IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.id"))
    name: Mapped[str]
    step: Mapped[int | None]
    value: Mapped[float | None]


class Statistic(Base):
    """What the driver computed from the measurements; readers render it and compute nothing."""

    __tablename__ = "statistics"
    __table_args__ = (Index("ix_statistics_run_id_name", "run_id", "name"),)

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str]
    architecture_id: Mapped[str | None] = mapped_column(ForeignKey("architectures.id"), index=True)
    rung: Mapped[int | None]
    metric: Mapped[str | None]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int | None]
    detail: Mapped[Json | None]
    created_at: Mapped[datetime]


class Analysis(Base):
    """What was concluded about one architecture."""

    __tablename__ = "analyses"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    architecture_id: Mapped[str] = mapped_column(ForeignKey("architectures.id"), index=True)
    author: Mapped[str]  # the model or rule that wrote it
    body: Mapped[str]
    created_at: Mapped[datetime]


class Insight(Base):
    """A lesson drawn from several architectures of a run, for later proposals."""

    __tablename__ = "insights"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    author: Mapped[str]
    body: Mapped[str]
    detail: Mapped[Json | None]  # which architectures and numbers it rests on
    created_at: Mapped[datetime]


class LLMCall(Base):
    __tablename__ = "llm_calls"

    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), index=True)
    architecture_id: Mapped[str | None] = mapped_column(ForeignKey("architectures.id"), index=True)
    role: Mapped[str]
    model: Mapped[str]
    prompt_hash: Mapped[str] = mapped_column(ForeignKey("texts.hash"))
    reply_hash: Mapped[str | None] = mapped_column(ForeignKey("texts.hash"))
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    latency_s: Mapped[float]
    error: Mapped[str | None]
    created_at: Mapped[datetime]


class TextBody(Base):
    """Prompts and replies, each once, by the SHA-256 of their UTF-8."""

    __tablename__ = "texts"

    hash: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (Index("ix_events_run_id_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    time: Mapped[datetime]
    kind: Mapped[str]
    data: Mapped[Json]
