"""Hostile candidates that are after files: to read, change or plant them, or to fool a reader."""

from __future__ import annotations

import importlib.util
import os
import stat
import sysconfig
from hashlib import sha256
from pathlib import Path

import torch
from hostile_scene import HostileCase, Scene

from linearch.evaluator.sandbox.python_places import standard_library

_LANDLOCK = frozenset({"landlock"})
_SECCOMP = frozenset({"seccomp"})
_EITHER = _LANDLOCK | _SECCOMP
_STRICT = ("strict",)
_HELD_OUT = [Path(path) for path in standard_library().withheld]
_COMPILED = [
    compiled
    for path in _HELD_OUT
    if (compiled := Path(importlib.util.cache_from_source(path))).exists()
]
# The same files of other Pythons on this machine, where places were granted whole once.
_COPIES = [
    copy
    for path in _HELD_OUT
    for place in ("/usr/lib", "/usr/lib64", "/usr/local/lib")
    for copy in Path(place).glob(f"python3*/{path.name}")
    if copy != path
]
_PLANTED = Path(sysconfig.get_path("purelib")) / "linearch-museum-planted.pth"


def _changed(scene: Scene) -> bool:
    return not scene.canary.exists() or scene.canary.read_text() != "untouched"


def _told(scene: Scene) -> bool:
    return scene.told


def _has_read(path: Path) -> object:
    return lambda scene: sha256(path.read_bytes()).hexdigest() in scene.printed


def _reads(name: str, paths: list[Path], **rest: object) -> list[HostileCase]:
    """Reading the first of some files, where there is one."""
    digest = "import hashlib; print(hashlib.sha256(open({!r}, 'rb').read()).hexdigest())"
    return [
        _case(name, digest.format(str(path)), _LANDLOCK, _has_read(path), reads=path, **rest)
        for path in paths[:1]
    ]


def _takes(n_bytes: int) -> object:
    return lambda scene: (scene.scratch / "x").stat().st_blocks * 512 >= n_bytes


def _locks(scene: Scene) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any(int(line.split()[4]) == scene.child for line in lines if "->" not in line)


def _planted(scene: Scene) -> bool:
    is_there = _PLANTED.exists()
    _PLANTED.unlink(missing_ok=True)
    return is_there


def _left(kind: int) -> object:
    def is_left(scene: Scene) -> bool:
        path = scene.scratch / "weights.safetensors"
        return os.path.lexists(path) and stat.S_IFMT(path.lstat().st_mode) == kind

    return is_left


def _case(name: str, source: str, stopped_by: frozenset[str], succeeded: object, **rest: object):
    return HostileCase(
        name=name,
        source=source,
        stopped_by=stopped_by,
        succeeded=succeeded,  # type: ignore[arg-type]
        **rest,  # type: ignore[arg-type]
    )


CASES = [
    *_reads("read what the default corpus holds out", _HELD_OUT),
    *_reads("read its compiled form", _COMPILED),
    *_reads("read another Python's copy of it", _COPIES),
    *_reads("read what is much like it", [Path(os.path.realpath(os.__file__))], profiles=_STRICT),
    *_reads("read a library's source", [Path(torch.__file__)], profiles=_STRICT),
    _case(
        "H17 a disk taken in one call",
        """
        kept = open("x", "wb")
        call("fallocate", kept.fileno(), 0, 0, 64 << 20)
        """,
        _SECCOMP,
        _takes(64 << 20),
    ),
    _case(
        "a lock on a system's file that others may want to change",
        "kept = open('/etc/ld.so.cache'); fcntl.lockf(kept, fcntl.LOCK_SH)",
        _SECCOMP,
        _locks,
    ),
    _case(
        "a lock on a system's file that keeps others out",
        "kept = open('/etc/ld.so.cache'); fcntl.flock(kept, fcntl.LOCK_EX)",
        _SECCOMP,
        _locks,
        profiles=("strict",),
    ),
    _case("H1 remove a file", "os.unlink(CANARY)", _LANDLOCK, _changed),
    _case("H1 overwrite a file", "open(CANARY, 'w').write('x')", _LANDLOCK, _changed),
    _case("H1 rename a file", "os.rename(CANARY, CANARY + '2')", _LANDLOCK, _changed),
    _case("H1 move a file into the scratch folder", "os.rename(CANARY, 'x')", _LANDLOCK, _changed),
    _case("H1 empty a file by its path", "os.truncate(CANARY, 0)", _EITHER, _changed),
    _case(
        "H1 empty a file that it may only read",
        "os.open(CANARY, os.O_RDONLY | os.O_TRUNC)",
        _EITHER,
        _changed,
    ),
    _case(
        "H1 change a file's mode",
        "os.chmod(CANARY, 0o777)",
        _SECCOMP,
        lambda scene: stat.S_IMODE(scene.canary.stat().st_mode) == 0o777,
    ),
    _case(
        "H1 change a file's times",
        "os.utime(CANARY, (7, 7))",
        _SECCOMP,
        lambda scene: scene.canary.stat().st_mtime == 7,
    ),
    _case(
        "H1 make a file outside",
        "open(FOLDER + '/new', 'w')",
        _LANDLOCK,
        lambda scene: (scene.folder / "new").exists(),
    ),
    _case(
        "H1 make a folder outside",
        "os.mkdir(FOLDER + '/new')",
        _LANDLOCK,
        lambda scene: (scene.folder / "new").exists(),
    ),
    _case("H4 read a file", "print(open(FOLDER + '/secret').read())", _LANDLOCK, _told),
    _case(
        "H4 read a file by way of its scratch folder",
        "print(open(os.path.relpath(FOLDER) + '/secret').read())",
        _LANDLOCK,
        _told,
    ),
    _case(
        "H4 read /etc/passwd",
        "print(open('/etc/passwd').read())",
        _LANDLOCK,
        lambda scene: "root:" in scene.printed,
    ),
    _case(
        "H4 list a folder",
        "print(os.listdir(FOLDER))",
        _LANDLOCK,
        lambda scene: "canary" in scene.printed,
    ),
    _case(
        "H22 plant code among the installed packages",
        f"open({str(_PLANTED)!r}, 'w').write('import this')",
        _LANDLOCK,
        _planted,
        needs_root=True,
    ),
    _case(
        "H33 a link in place of the weights",
        "os.symlink(FOLDER + '/secret', 'weights.safetensors')",
        _EITHER,
        _left(stat.S_IFLNK),
    ),
    _case(
        "H33 a hard link in place of the weights",
        "os.link(FOLDER + '/secret', 'weights.safetensors')",
        _EITHER,
        _left(stat.S_IFREG),
    ),
    _case(
        "H33 a pipe in place of the weights",
        "os.mkfifo('weights.safetensors')",
        _EITHER,
        _left(stat.S_IFIFO),
    ),
    _case(
        "H33 a device in place of the weights",
        "os.mknod('weights.safetensors', stat.S_IFBLK | 0o600, os.makedev(1, 0))",
        _EITHER | {"capabilities"},
        _left(stat.S_IFBLK),
        needs_root=True,
    ),
    _case(
        "H33 a sparse giant in place of the weights",
        "with open('weights.safetensors', 'w') as file: file.truncate(1 << 40)",
        frozenset({"rlimits"}),
        lambda scene: (scene.scratch / "weights.safetensors").stat().st_size == 1 << 40,
    ),
    _case(
        "H18 a file without a name",
        "kept = os.open('.', os.O_TMPFILE | os.O_RDWR)",
        _SECCOMP,
        lambda scene: any("deleted" in name for name in scene.files_of_the_child()),
    ),
    _case(
        "root's power over the files of others",
        "print(open(FOLDER + '/of-another').read())",
        frozenset({"landlock", "capabilities"}),
        _told,
        needs_root=True,
    ),
]
