"""The store: one SQL database with its blobs, which is the only truth about all runs in it.

The driver of a run writes; anyone may read meanwhile. Operations are whole transactions.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL

from ..errors import StoreError
from .architecture_records import ArchitectureRecords
from .blobs import Blobs
from .database import RECONNECT_S, Database
from .journal_records import JournalRecords
from .location import default_store_url, parse_location, refuse_network_filesystem, shown
from .migrate import ensure_schema
from .queries import Queries
from .run_records import RunRecords
from .trial_records import TrialRecords

_NO_STORE = "There is no store at {}; start a search with launch-search, or name one with --store."


class Store(RunRecords, ArchitectureRecords, TrialRecords, JournalRecords):
    """Writes and looks up rows; `queries` holds what leaderboards and pages are made of.

    Safe to share between threads; a forked process opens its own.
    """

    def __init__(self, database: Database, blobs: Blobs) -> None:
        super().__init__(database, blobs)
        self.queries = Queries(database)

    @classmethod
    def open(
        cls,
        url_or_path: str | Path | None = None,
        *,
        create: bool = True,
        blob_folder: str | Path | None = None,
    ) -> Store:
        """Open a store, bringing its tables up to date, or make one.

        `url_or_path` is an SQLite file or a postgresql:// URL, by default `default_store_url()`.
        `blob_folder` is by default `blobs` beside the SQLite file, or `runs/blobs`.
        Raises StoreError, in one sentence with what to do, if it is missing and `create` is false,
        of a newer schema, unreadable, damaged, or on a network file system (SQLite).
        """
        url = parse_location(url_or_path if url_or_path is not None else default_store_url())
        if url.drivername == "sqlite":
            _prepare_file(Path(url.database or ""), create)
        database = Database(url)
        try:
            ensure_schema(database, create=create)
            if database.is_sqlite:  # only now: the file might have been another program's
                database.enter_wal()
            else:
                database.patience_s = RECONNECT_S
        except BaseException:
            database.close()
            raise
        return cls(database, Blobs(Path(blob_folder) if blob_folder else _blobs_beside(url)))

    @property
    def location(self) -> str:
        """The file or URL as commands take it after --store; a password is shown as ***."""
        return shown(self._database.url)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _prepare_file(file: Path, create: bool) -> None:
    if not create and not (file.exists() and file.stat().st_size):
        raise StoreError(_NO_STORE.format(file))
    if file.is_dir():
        raise StoreError(f"The store {file} is a folder; name a file in it, such as linearch.db.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot make the folder {file.parent}: {error.strerror}.") from error
    refuse_network_filesystem(file.parent)


def _blobs_beside(url: URL) -> Path:
    if url.drivername == "sqlite" and url.database:
        return Path(url.database).parent / "blobs"
    return Path("runs/blobs").absolute()
