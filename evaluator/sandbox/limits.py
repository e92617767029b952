"""What a child may use, and how a process binds itself to the one that answers for it."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass

from .kernel import prctl

MIB = 1 << 20

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """`wall_s` runs from the spawn to the last reply; memory is what comes on top of the zygote's.

    `caps_address_space` also lets allocations fail at the limit; impossible beside CUDA, whose
    private mappings are far larger than what it uses. `gpu_memory_fraction` is what the child may
    take of a GPU's memory: torch's allocator fails there, and the watchdog ends whoever gets past
    it; None leaves it all.
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
    gpu_memory_fraction: float | None = None


def bind_to_parent(parent: int) -> None:
    """Has the kernel kill this process when `parent` dies; ends at once if it is dead already."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent died."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory(is_hidden: bool) -> None:
    """Whether others of the same user are kept from this process's memory and open files."""
    prctl(_PR_SET_DUMPABLE, 0 if is_hidden else 1)


def limit_resources(limits: Limits) -> None:
    """Lowers this process's limits for good."""
    os.umask(0o077)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_MSGQUEUE, 0)
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
