"""Own network, System V objects, host name and user table, where an ordinary user may have them.

The zygote enters them once, before it loads anything; its children are born there. Other layers
refuse the same acts, so that this one is never required.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .kernel import LayerMissing, unshare

_NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
_ALL = _NEWUSER | _NEWNET | _NEWIPC | _NEWUTS


def enter_namespaces(must_stay_readable: Iterable[str]) -> None:
    """Must be called by a process with one thread. Raises LayerMissing, with nothing changed.

    Root's power over files of others ends at the border, so a forked copy tries it first: what is
    to be read must still be readable there.
    """
    readable = list(filter(_is_readable, must_stay_readable))
    trial = os.fork()
    if trial == 0:
        status = 2
        try:
            _enter()
            status = 0 if all(map(_is_readable, readable)) else 1
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(trial, 0)[1])
    if code == 1:
        raise LayerMissing("what Python consists of would not be readable in a user namespace")
    if code != 0:
        raise LayerMissing("user namespaces are not allowed here")
    try:
        _enter()
    except OSError as error:
        raise LayerMissing(f"user namespaces are not allowed here: {error.strerror}") from None


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)  # capabilities included


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    unshare(_ALL)
    # Each keeps its own ids; groups must be given up before an ordinary user may map one.
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
