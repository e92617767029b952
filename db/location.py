"""Where a store is: SQLite files and PostgreSQL URLs, and file systems that SQLite cannot use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import StoreError

_NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "afs", "ncpfs")
_MOUNTS = Path("/proc/self/mountinfo")


def default_store_url() -> str:
    """`LINEARCH_STORE` if set, else `runs/linearch.db` below the current folder."""
    return os.environ.get("LINEARCH_STORE") or "runs/linearch.db"


def parse_location(url_or_path: str | Path) -> URL:
    """The SQLAlchemy URL of a store; raises StoreError for one that cannot hold a store."""
    text = str(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StoreError(
            "The store's URL cannot be read; write postgresql://user@host/database or a path."
        ) from None
    backend = url.drivername.partition("+")[0]
    if backend == "sqlite":
        return _sqlite_url(url)
    if backend in ("postgresql", "postgres"):
        return _postgresql_url(url)
    raise StoreError(
        f"The store's URL starts with {url.drivername}://; give an SQLite file or postgresql://…"
    )


def shown(url: URL) -> str:
    """The URL or path for messages, without the password."""
    if url.drivername == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string()


def refuse_network_filesystem(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Raise StoreError where `folder` lies on a network mount: SQLite's WAL needs shared memory,
    which machines do not share. Systems without a mount table are not checked."""
    try:
        table = mounts.read_text()
    except OSError:
        return
    filesystem = _filesystem_of(folder.resolve(), table)
    if filesystem.startswith(_NETWORK_FILESYSTEMS):
        raise StoreError(
            f"{folder} lies on a network file system ({filesystem}), where SQLite loses data; "
            "put the store on a local disk or use --store postgresql://…"
        )


def _filesystem_of(folder: Path, table: str) -> str:
    best, found = -1, ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        is_inside = folder == Path(point) or Path(point) in folder.parents
        if is_inside and len(point) >= best:  # a later mount covers an earlier one
            best, found = len(point), right.split(" ")[0]
    return found


def _sqlite_url(url: URL) -> URL:
    if not url.database or url.database == ":memory:":
        raise StoreError("A store needs a file: write its path, or sqlite:///path/to/file.db.")
    return URL.create("sqlite", database=str(Path(url.database).expanduser().absolute()))


def _postgresql_url(url: URL) -> URL:
    if importlib.util.find_spec("psycopg") is None:
        raise StoreError(
            "A PostgreSQL store needs psycopg; install it with: pip install 'linearch[postgres]'"
        )
    return url.set(drivername="postgresql+psycopg")
