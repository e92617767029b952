"""Landlock: which files this process, and all it starts, may open from now on; and no TCP.

It holds for the calling thread and what that thread starts, so it comes before any other thread.
What it cannot refuse (chmod, utime, xattr, stat) is refused by seccomp, or open: stat and readlink.
Kernel documentation: userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from .kernel import LayerMissing, system_call

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION = 1  # the flag of _CREATE that asks for the ABI
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
# Rights that the kernel of an ABI knows; all are handled, so what is not granted is refused.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_READ = _READ_FILE | _READ_DIR
# No links, pipes, devices or sockets. Savers of files make one under another name and rename it.
_WRITE = _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


@dataclass(frozen=True, kw_only=True, slots=True)
class FileAccess:
    """Paths and what is allowed on and below them; a path that does not exist grants nothing."""

    readable: tuple[str, ...]
    listable: tuple[str, ...]  # names alone
    writable: tuple[str, ...]
    devices: tuple[str, ...]
    may_execute: bool  # what is readable


def landlock_abi() -> int:
    """The version that the running kernel offers; 0 for none."""
    try:
        return system_call(_CREATE, None, 0, _VERSION)
    except OSError:
        return 0


def scopes_signals(abi: int) -> bool:
    """Whether a confined process can signal none outside its confinement."""
    return abi >= 6


def restrict_files(access: FileAccess) -> None:
    """Confines this thread for good. Needs no_new_privs or CAP_SYS_ADMIN; raises LayerMissing."""
    abi = landlock_abi()
    if abi < 1:
        raise LayerMissing("the kernel offers no Landlock (Linux 5.13 or newer, with it enabled)")
    known = _KNOWN[max(version for version in _KNOWN if version <= abi)]
    try:
        ruleset = _create(abi, known)
        try:
            for paths, rights in _grants(access):
                _add(ruleset, paths, rights & known)
            system_call(_RESTRICT, ruleset, 0)
        finally:
            os.close(ruleset)
    except OSError as error:
        raise LayerMissing(f"Landlock refused: {error.strerror}") from None


def _grants(access: FileAccess) -> Iterable[tuple[tuple[str, ...], int]]:
    yield access.readable, _READ | (_EXECUTE if access.may_execute else 0)
    yield access.listable, _READ_DIR
    yield access.writable, _READ | _WRITE
    yield access.devices, _READ_FILE | _WRITE_FILE | _IOCTL_DEV


def _create(abi: int, known: int) -> int:
    attributes = _RulesetAttributes(
        handled_access_fs=known,
        handled_access_net=_TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        scoped=_ABSTRACT_SOCKETS_AND_SIGNALS if scopes_signals(abi) else 0,
    )
    size = 24 if scopes_signals(abi) else 16 if abi >= 4 else 8
    return system_call(_CREATE, ctypes.byref(attributes), size, 0)


def _add(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                continue
            raise
        try:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            allowed = rights if is_folder else rights & _FOR_FILES
            rule = _PathBeneath(allowed_access=allowed, parent_fd=descriptor)
            system_call(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(descriptor)
