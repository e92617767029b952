"""What /proc says about a process and those below it; a process that is gone has nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_IN_MEMORY = "RssAnon"
_MEMORY = (_IN_MEMORY, "RssShmem", "VmSwap", "HugetlbPages")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessUsage:
    """Memory is what a process has that is no file: anonymous and shared-memory pages, wherever
    they are. The tables of its pages are its own, even where it shares the pages with its parent.

    A process goes on when its first thread has ended, but then /proc shows neither its open files
    nor its maps.
    """

    memory_bytes: int
    table_bytes: int
    threads: int
    has_first_thread: bool


def children_of(pid: int) -> list[int]:
    """The direct children, zombies included."""
    children: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        # gone, or a kernel that keeps no such lists (CONFIG_PROC_CHILDREN)
        return [] if _KEEPS_LISTS else children_by_scan(pid)
    return children


def children_by_scan(pid: int) -> list[int]:
    """The same from every process's own record; slower on a machine with many processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == pid]


def tree_below(pid: int, at_most: int) -> list[int]:
    """Every descendant, zombies included, nearest first; stops at `at_most`."""
    found = children_of(pid)
    for descendant in found:  # grows while it is walked
        if len(found) >= at_most:
            return found[:at_most]
        found += children_of(descendant)
    return found


def usage_of(pid: int) -> ProcessUsage | None:
    """None for a process that is gone or a zombie."""
    own = _status(f"/proc/{pid}")
    has_first_thread = _IN_MEMORY in own
    fields = own if has_first_thread else _status_of_a_thread(pid)
    if _IN_MEMORY not in fields:
        return None
    return ProcessUsage(
        memory_bytes=sum(_bytes(fields, name) for name in _MEMORY),
        table_bytes=_bytes(fields, "VmPTE"),
        threads=int(fields["Threads"]),
        has_first_thread=has_first_thread,
    )


def open_removed_files(pid: int) -> dict[tuple[int, int], int]:
    """Bytes on disk of files that have no name any more and are still open, by device and inode.

    Raises PermissionError if the process hides them.
    """
    found = {}
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    for descriptor in descriptors:
        try:
            facts = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
            found[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return found


def mapped_removed_files(pid: int, below: str) -> set[str]:
    """Inodes of files once below a folder that have no name any more and are mapped into memory."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    removed = (line.split(None, 5) for line in lines if line.endswith(" (deleted)"))
    return {fields[4] for fields in removed if len(fields) == 6 and fields[5].startswith(below)}


def _bytes(fields: dict[str, str], name: str) -> int:
    """Of a line in KiB; none of what the kernel was built without."""
    return int(fields[name].split()[0]) * 1024 if name in fields else 0


def _status(process: str) -> dict[str, str]:
    try:
        status = Path(f"{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split(":", 1) for line in status.splitlines() if ":" in line)


def _status_of_a_thread(pid: int) -> dict[str, str]:
    """Of one that still has the process's memory; what is said of that is the process's."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    found = (_status(f"/proc/{pid}/task/{thread}") for thread in threads)
    return next((fields for fields in found if _IN_MEMORY in fields), {})


def _parent(pid: str) -> int | None:
    try:
        record = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(record.rpartition(")")[2].split()[1])  # the name before it may hold anything


_KEEPS_LISTS = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()
