"""What /proc says about a process and those below it; a process that is gone has nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessUsage:
    """Memory is what belongs to the process alone: anonymous and shared-memory pages and the
    tables of its pages, no files.
    """

    memory_bytes: int
    threads: int


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
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "RssAnon" not in fields:
        return None
    kib = sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmPTE"))
    return ProcessUsage(memory_bytes=kib * 1024, threads=int(fields["Threads"]))


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


def _parent(pid: str) -> int | None:
    try:
        record = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(record.rpartition(")")[2].split()[1])  # the name before it may hold anything


_KEEPS_LISTS = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()
