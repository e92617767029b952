"""Only a plain file of a plausible size is ever read from a child's folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from linearch.evaluator.sandbox.artifacts import read_artifact, remove_scratch, write_artifact
from linearch.evaluator.sandbox.capabilities import drop_capabilities
from linearch.evaluator.sandbox.failures import ChildFailed


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def _symlink(path: Path) -> None:
    (path.parent / "target").write_bytes(b"secret")
    path.symlink_to(path.parent / "target")


def _hard_link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"secret")
    path.hardlink_to(path.parent / "target")


def _sparse_giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


TRAPS: dict[str, Callable[[Path], object]] = {
    "symlink": _symlink,
    "hard link": _hard_link,
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "sparse giant": _sparse_giant,
    "missing": lambda path: None,
    "one byte too long": lambda path: path.write_bytes(b"x" * 101),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_under_the_expected_name_is_refused(trap: str, folder: int, tmp_path: Path) -> None:
    TRAPS[trap](tmp_path / "weights.safetensors")
    with pytest.raises(ChildFailed, match="weights") as failure:
        read_artifact(folder, "weights.safetensors", at_most=100)
    assert failure.value.kind == "protocol"


def test_a_plain_file_comes_back_whole(folder: int, tmp_path: Path) -> None:
    write_artifact(folder, "weights.safetensors", b"x" * 100)
    assert read_artifact(folder, "weights.safetensors", at_most=100) == b"x" * 100


def test_nothing_is_written_over_what_is_there(folder: int, tmp_path: Path) -> None:
    _symlink(tmp_path / "resume.safetensors")
    with pytest.raises(ChildFailed, match="in the place of resume"):
        write_artifact(folder, "resume.safetensors", b"x")
    assert (tmp_path / "target").read_bytes() == b"secret"


_NOBODY = 65534


def test_a_folder_closed_to_its_owner_is_removed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        ordinary = os.fork()  # who may not read any folder
        if ordinary == 0:
            status = 2
            try:
                status = _remove_what_rmtree_cannot(Path(folder, "scratch"))
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(ordinary, 0)[1]) == 0


def _remove_what_rmtree_cannot(scratch: Path) -> int:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    drop_capabilities()
    scratch.joinpath("outer", "inner").mkdir(parents=True)
    scratch.joinpath("outer").chmod(0o300)
    try:
        shutil.rmtree(scratch)
    except PermissionError:
        remove_scratch(str(scratch))
        return int(scratch.exists())
    return 3
