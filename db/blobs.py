"""Content-addressed files: a blob's name is the SHA-256 of its bytes, so it is written once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError


class Blobs:
    """Files `ab/abcd…` below `folder`, which is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes) -> str:
        """Write `content` durably and return its hash; a reader never sees half a file."""
        digest = hashlib.sha256(content).hexdigest()
        self.ensure(digest, content)
        return digest

    def ensure(self, digest: str, content: bytes) -> None:
        """Write `content`, whose hash is `digest`, unless it is there in full length."""
        target = self.path(digest)
        if _has_size(target, len(content)):
            return
        try:
            self._write(target, content)
        except OSError as error:
            raise StoreError(
                f"Cannot write below {self.folder}: {error.strerror}; free space or change the "
                "permissions, then resume the run."
            ) from error

    def get(self, digest: str) -> bytes:
        """The bytes of a blob; raises StoreError if they are gone or no longer match their hash."""
        try:
            content = self.path(digest).read_bytes()
        except OSError as error:
            raise StoreError(
                f"The file {self.path(digest)} of this store cannot be read ({error.strerror}); "
                "copy the folder of blobs together with the database."
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(
                f"The file {self.path(digest)} is damaged: it does not match its name."
            )
        return content

    def remove(self, digest: str, is_needed: Callable[[], bool]) -> None:
        """Remove a blob unless `is_needed` says so.

        It is asked once more with the file out of the way: who stored a reference meanwhile is then
        either seen here, or finds the file gone and puts it again.
        """
        if is_needed():
            return
        target = self.path(digest)
        aside = target.with_name(f".removed-{digest}")
        try:
            target.rename(aside)
        except FileNotFoundError:
            return
        if is_needed():
            aside.rename(target)
        else:
            aside.unlink()

    def path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def _write(self, target: Path, content: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        _sync_folder(target.parent)


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name survives a power loss too
    finally:
        os.close(descriptor)
