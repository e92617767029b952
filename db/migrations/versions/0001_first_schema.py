"""The first schema: runs, architectures, trials, their measurements and the journal."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_runs()
    _create_architectures()
    _create_trials()
    _create_statistics()
    _create_notes()
    _create_journal()


def downgrade() -> None:
    for table in (
        *("events", "llm_calls", "texts", "insights", "analyses", "statistics"),
        *("metrics", "trials", "gate_results", "parents", "architectures", "runs"),
    ):
        op.drop_table(table)


def _create_runs() -> None:
    op.create_table(
        "runs",
        _text("id"),
        _time("created_at"),
        _text("name", nullable=True),
        _text("state"),
        _text("stop_reason", nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        _whole("seed"),
        _number("elapsed_s", nullable=True),
        _text("owner", nullable=True),
        _whole("owner_epoch"),
        _time("heartbeat_at", nullable=True),
        _whole("revision"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )


def _create_architectures() -> None:
    op.create_table(
        "architectures",
        _text("id"),
        _text("run_id"),
        _whole("number"),
        _text("name"),
        _text("motivation"),
        _text("expectation"),
        _text("origin"),
        _text("source"),
        _text("source_hash"),
        _text("normalised_hash"),
        _text("pattern"),
        _text("family", nullable=True),
        sa.Column("genome", sa.JSON()),
        sa.Column("is_reference", sa.Boolean(), nullable=False),
        _text("state"),
        _text("reason", nullable=True),
        _text("rejected_by", nullable=True),
        _whole("mlp_width", nullable=True),
        _whole("n_params", nullable=True),
        _whole("state_bytes", nullable=True),
        sa.Column("state_bytes_at", sa.JSON()),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_architectures"),
        _refers("architectures", "run_id", "runs.id"),
        sa.UniqueConstraint(
            "run_id", "normalised_hash", name="uq_architectures_run_id_normalised_hash"
        ),
        sa.UniqueConstraint("run_id", "number", name="uq_architectures_run_id_number"),
    )
    op.create_index("ix_architectures_name", "architectures", ["name"])
    op.create_index("ix_architectures_source_hash", "architectures", ["source_hash"])
    op.create_table(
        "parents",
        _text("child_id"),
        _text("parent_id"),
        _text("kind"),
        sa.PrimaryKeyConstraint("child_id", "parent_id", name="pk_parents"),
        _refers("parents", "child_id", "architectures.id"),
        _refers("parents", "parent_id", "architectures.id"),
    )
    op.create_index("ix_parents_parent_id", "parents", ["parent_id"])
    op.create_table(
        "gate_results",
        _text("architecture_id"),
        _text("gate"),
        _whole("position"),
        sa.Column("passed", sa.Boolean(), nullable=False),
        _text("reason", nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        _number("duration_s", nullable=True),
        _text("sandbox", nullable=True),
        sa.PrimaryKeyConstraint("architecture_id", "gate", name="pk_gate_results"),
        _refers("gate_results", "architecture_id", "architectures.id"),
    )


def _create_trials() -> None:
    key = ("run_id", "architecture_id", "task", "rung", "seed", "learning_rate")
    op.create_table(
        "trials",
        _text("id"),
        _text("run_id"),
        _text("architecture_id"),
        _text("task"),
        _whole("rung"),
        _whole("tokens"),
        _whole("seed"),
        _number("learning_rate"),
        _text("state"),
        _text("status", nullable=True),
        _text("reason", nullable=True),
        _text("owner", nullable=True),
        _whole("epoch"),
        _time("heartbeat_at", nullable=True),
        _whole("attempts"),
        _number("gpus", nullable=True),
        _text("device", nullable=True),
        sa.Column("environment", sa.JSON()),
        _number("wall_s", nullable=True),
        _time("queued_at"),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
        _text("checkpoint_hash", nullable=True),
        _text("weights_hash", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        _refers("trials", "run_id", "runs.id"),
        _refers("trials", "architecture_id", "architectures.id"),
        sa.UniqueConstraint(*key, name="uq_trials"),
    )
    op.create_index("ix_trials_architecture_id", "trials", ["architecture_id"])
    op.create_index("ix_trials_run_id_state", "trials", ["run_id", "state"])
    op.create_table(
        "metrics",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("trial_id"),
        _text("name"),
        _whole("step", nullable=True),
        _number("value", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
        _refers("metrics", "trial_id", "trials.id"),
        sa.UniqueConstraint("trial_id", "name", "step", name="uq_metrics_trial_id_name_step"),
    )
    is_final = sa.text("step IS NULL")
    op.create_index(
        "uq_metrics_final",
        "metrics",
        ["trial_id", "name"],
        unique=True,
        sqlite_where=is_final,
        postgresql_where=is_final,
    )


def _create_statistics() -> None:
    op.create_table(
        "statistics",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("run_id"),
        _text("name"),
        _text("architecture_id", nullable=True),
        _whole("rung", nullable=True),
        _text("metric", nullable=True),
        _number("value", nullable=True),
        _number("low", nullable=True),
        _number("high", nullable=True),
        _whole("n", nullable=True),
        sa.Column("detail", sa.JSON()),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_statistics"),
        _refers("statistics", "run_id", "runs.id"),
        _refers("statistics", "architecture_id", "architectures.id"),
    )
    op.create_index("ix_statistics_run_id_name", "statistics", ["run_id", "name"])
    op.create_index("ix_statistics_architecture_id", "statistics", ["architecture_id"])


def _create_notes() -> None:
    op.create_table(
        "analyses",
        _text("id"),
        _text("run_id"),
        _text("architecture_id"),
        _text("author"),
        _text("body"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_analyses"),
        _refers("analyses", "run_id", "runs.id"),
        _refers("analyses", "architecture_id", "architectures.id"),
    )
    op.create_index("ix_analyses_run_id", "analyses", ["run_id"])
    op.create_index("ix_analyses_architecture_id", "analyses", ["architecture_id"])
    op.create_table(
        "insights",
        _text("id"),
        _text("run_id"),
        _text("author"),
        _text("body"),
        sa.Column("detail", sa.JSON()),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_insights"),
        _refers("insights", "run_id", "runs.id"),
    )
    op.create_index("ix_insights_run_id", "insights", ["run_id"])


def _create_journal() -> None:
    op.create_table(
        "texts",
        _text("hash"),
        _text("body"),
        sa.PrimaryKeyConstraint("hash", name="pk_texts"),
    )
    op.create_table(
        "llm_calls",
        _text("id"),
        _text("run_id"),
        _text("architecture_id", nullable=True),
        _text("role"),
        _text("model"),
        _text("prompt_hash"),
        _text("reply_hash", nullable=True),
        _whole("input_tokens", nullable=True),
        _whole("output_tokens", nullable=True),
        _number("cost_usd", nullable=True),
        _number("latency_s"),
        _text("error", nullable=True),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_llm_calls"),
        _refers("llm_calls", "run_id", "runs.id"),
        _refers("llm_calls", "architecture_id", "architectures.id"),
        _refers("llm_calls", "prompt_hash", "texts.hash"),
        _refers("llm_calls", "reply_hash", "texts.hash"),
    )
    op.create_index("ix_llm_calls_run_id", "llm_calls", ["run_id"])
    op.create_index("ix_llm_calls_architecture_id", "llm_calls", ["architecture_id"])
    op.create_table(
        "events",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("run_id"),
        _time("time"),
        _text("kind"),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        _refers("events", "run_id", "runs.id"),
    )
    op.create_index("ix_events_run_id_id", "events", ["run_id", "id"])


def _text(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _whole(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _time(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _refers(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}")
