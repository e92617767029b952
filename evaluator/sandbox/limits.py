"""What a child may use, and how a process binds and confines itself before it runs foreign code.

`confine` is the one call between trusted start-up and candidate code: further layers belong there.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from dataclasses import dataclass

MIB = 1 << 20
# What contains a candidate, as stored with its results.
LAYERS = ("process", "empty-environment", "rlimits", "watchdog")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`wall_s` runs from the spawn to the last reply; memory is what comes on top of the zygote's.

    `caps_address_space` also lets allocations fail at the limit; impossible beside CUDA, whose
    private mappings are far larger than what it uses.
    """

    wall_s: float
    memory_bytes: int
    caps_address_space: bool = True
    scratch_bytes: int = 256 * MIB
    scratch_entries: int = 4096
    output_bytes: int = 1 * MIB
    processes: int = 32
    threads: int = 512
    open_files: int = 256


def bind_to_parent(parent: int) -> None:
    """Has the kernel kill this process when `parent` dies; ends at once if it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent died."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def confine(limits: Limits) -> None:
    """Locks this process down for good; what it needs open must be open before."""
    os.umask(0o077)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, limits.open_files)
    _set_limit(resource.RLIMIT_FSIZE, limits.scratch_bytes)
    if limits.caps_address_space:
        _set_limit(resource.RLIMIT_DATA, _data_bytes() + limits.memory_bytes)


def _set_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _data_bytes() -> int:
    """What RLIMIT_DATA counts now; the zygote's part is not the candidate's."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_ulong(number) for number in (value, 0, 0, 0))
    if libc.prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
