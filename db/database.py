"""Connections and transactions: snapshots to read, one writer at a time to write.

SQLite runs in WAL with synchronous=FULL, and writers BEGIN IMMEDIATE: a transaction that reads
first and writes later would else fail at once where another process wrote in between.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from ..errors import StoreError
from .columns import to_json
from .faults import explain
from .location import shown

BUSY_TIMEOUT_S = 30.0
RECONNECT_S = 60.0  # how long a server that answered before may be away
_PAUSE_S = 0.2


class Database:
    """An engine with two kinds of transaction; safe to share between threads, not across forks."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.drivername == "sqlite"
        self.patience_s = 0.0  # how long to try to reach the server
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgresql_engine(url)
        self._reader = self.engine.execution_options(
            **({} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}), reads_only=True
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot; waits for no writer."""
        with self._explained(), self._connect(self._reader) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of it is committed, durably, or none."""
        with self._explained(), self._connect(self.engine) as connection, connection.begin():
            yield connection

    def now(self, connection: Connection) -> datetime:
        """The clock that leases are measured by: the server's where there is one."""
        if self.is_sqlite:
            return datetime.now(UTC)
        found: datetime = connection.scalar(text("SELECT clock_timestamp()"))
        return found.astimezone(UTC)

    def enter_wal(self) -> None:
        """Put an SQLite file into WAL mode, which then is a property of the file.

        The switch needs the file alone and does not honour the busy timeout.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while not self._try_wal():
            if time.monotonic() > deadline:
                raise StoreError(explain(shown(self.url), "database is locked"))
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        self.engine.dispose()

    def _try_wal(self) -> bool:
        try:  # beside SQLAlchemy, which would begin a transaction first
            with closing(self.engine.raw_connection()) as connection:
                mode = connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except (sqlite3.DatabaseError, DBAPIError) as error:
            if "locked" in str(error):
                return False
            raise StoreError(explain(shown(self.url), str(error))) from error
        return bool(mode == "wal")

    def _connect(self, engine: Engine) -> Connection:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return engine.connect()
            except OperationalError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_S)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a broken rule of the schema: the caller's to understand
        except DBAPIError as error:
            raise StoreError(explain(shown(self.url), str(error.orig))) from error


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, json_serializer=to_json, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": 10}
    return create_engine(url, json_serializer=to_json, pool_pre_ping=True, connect_args=patience)


def _set_up_sqlite(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # we begin our own transactions
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
