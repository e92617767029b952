from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from linearch.db import Store
from linearch.db.migrate import MIGRATIONS
from linearch.db.schema import HEAD, Base


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
