from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from linearch.db import Store
from linearch.db.migrate import MIGRATIONS, alembic_config
from linearch.db.schema import HEAD, Base
from linearch.evaluator.results import GateResult, Judgement, TrialResult


def test_the_schema_names_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrations_make_exactly_the_schema(store: Store) -> None:
    with store._database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_final_metrics_are_unique_in_the_migrated_table_too(store: Store) -> None:
    with store._database.read() as connection:
        indexes = {index["name"]: index for index in inspect(connection).get_indexes("metrics")}
    final = indexes["uq_metrics_final"]
    assert final["unique"]
    assert any("IS NULL" in str(clause) for clause in final["dialect_options"].values())


def test_the_first_migration_can_be_taken_back(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        with store._database.write() as connection:
            config = Config(attributes={"connection": connection, "metadata": Base.metadata})
            config.set_main_option("script_location", str(MIGRATIONS))
            command.downgrade(config, "base")
        with store._database.read() as connection:
            assert inspect(connection).get_table_names() == ["alembic_version"]


def _alembic(store: Store, step: Callable[..., None], revision: str) -> None:
    with store._database.write() as connection:
        step(alembic_config(connection), revision)


def test_stored_gates_keep_their_verdict_when_the_stages_come(lab: Any) -> None:
    row = lab.judge(lab.propose().id, failing="streaming")
    before = lab.store.queries.architecture(row.id)
    _alembic(lab.store, command.downgrade, "0001")
    with lab.store._database.read() as connection:
        assert "stage" not in _columns(connection, "gate_results")
        key = inspect(connection).get_pk_constraint("gate_results")
        assert key["constrained_columns"] == ["architecture_id", "gate"]
    _alembic(lab.store, command.upgrade, "head")
    assert lab.store.queries.architecture(row.id) == before
    assert {gate.stage for gate in before.gates} == {"cpu"}
    with lab.store._database.read() as connection:
        key = inspect(connection).get_pk_constraint("gate_results")
        assert key["constrained_columns"] == ["architecture_id", "gate", "stage"]
        columns = _columns(connection, "gate_results")
        assert columns["passed"]["nullable"]
        assert columns["stage"]["default"] is None


def test_going_back_drops_what_the_older_schema_cannot_hold(lab: Any) -> None:
    results = (
        GateResult(gate="shape", passed=True),
        GateResult(gate="shape", passed=True, stage="device"),
        GateResult(gate="streaming", passed=None, reason="it cannot stream"),
    )
    row = lab.store.record_judgement(lab.propose().id, Judgement(results=results))
    _alembic(lab.store, command.downgrade, "0001")
    _alembic(lab.store, command.upgrade, "head")
    gates = lab.store.queries.architecture(row.id).gates
    assert [(gate.gate, gate.stage) for gate in gates] == [("shape", "cpu")]


def test_trials_of_older_stores_have_no_windows(lab: Any) -> None:
    trial = lab.enqueue(lab.sound().id)
    result = TrialResult(status="done", metrics={"val_bpb": 2.5}, window_nats=(1.0, 2.0))
    lab.finish(trial.id, result)
    before = lab.store.trial(trial.id)
    _alembic(lab.store, command.downgrade, "0003")
    _alembic(lab.store, command.upgrade, "head")
    assert lab.store.trial(trial.id) == before
    assert lab.store.queries.window_nats(lab.run_id) == {}


def _columns(connection: Connection, table: str) -> dict[str, Any]:
    return {column["name"]: column for column in inspect(connection).get_columns(table)}
