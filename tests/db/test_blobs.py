from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from linearch.db.blobs import Blobs
from linearch.errors import StoreError


def test_a_blob_lies_under_the_hash_of_its_bytes(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.put(b"weights")
    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert blobs.get(digest) == b"weights"
    files = [path for path in blobs.folder.rglob("*") if path.is_file()]
    assert files == [blobs.folder / digest[:2] / digest]


def test_equal_bytes_are_written_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    before = blobs.path(blobs.put(b"same")).stat()
    assert blobs.path(blobs.put(b"same")).stat().st_ino == before.st_ino


def test_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"weights")
    blobs.path(digest).write_bytes(b"weighty")
    with pytest.raises(StoreError, match="damaged"):
        blobs.get(digest)


def test_a_damaged_blob_is_mended_when_its_bytes_are_stored_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"weights")
    blobs.path(digest).write_bytes(b"wei")
    assert blobs.get(blobs.put(b"weights")) == b"weights"


def test_a_missing_blob_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="copy the folder of blobs"):
        Blobs(tmp_path).get("ab" * 32)


def test_an_unwritable_folder_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="Cannot write below"):
        Blobs(tmp_path / "blobs").put(b"weights")


def test_a_blob_that_is_needed_again_meanwhile_is_not_removed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"weights")
    answers = iter([False, True])
    blobs.remove(digest, lambda: next(answers))
    assert blobs.get(digest) == b"weights"
    blobs.remove(digest, lambda: False)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
