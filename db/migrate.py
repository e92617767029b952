"""Brings a store's tables to this version's schema, in one transaction under one lock.

Two processes that open a new store at once both succeed: the second finds the work done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from ..errors import StoreError
from .database import Database
from .location import shown
from .schema import HEAD, Base

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x6C696E6561726368  # "linearch"


def ensure_schema(database: Database, *, create: bool) -> None:
    """Create or upgrade the tables. Raises StoreError where there are none and `create` is false,
    where a newer linearch wrote them, or where they are another program's."""
    with database.read() as connection:
        if _revision(connection) == HEAD:
            return
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        revision = _revision(connection)
        if revision is None:
            _check_empty(connection, shown(database.url), create)
        if revision != HEAD:
            _upgrade(connection, revision, shown(database.url))


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for our migrations on an open connection."""
    from alembic.config import Config  # here: a store that is up to date opens without Alembic

    config = Config(attributes={"connection": connection, "metadata": Base.metadata})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if revision is None else str(revision)


def _check_empty(connection: Connection, place: str, create: bool) -> None:
    if not create:
        raise StoreError(
            f"{place} holds no store yet; start a search with launch-search, or name another "
            "store with --store."
        )
    taken = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
    if taken:
        raise StoreError(
            f"{place} holds another program's table {taken[0]!r}; name another store with --store."
        )


def _upgrade(connection: Connection, revision: str | None, place: str) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"{place} was written by a newer linearch (schema {revision}, this one knows up to "
            f"{HEAD}); upgrade linearch, or name another store with --store."
        )
    command.upgrade(config, "head")
