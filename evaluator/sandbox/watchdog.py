"""Measures a child from the outside, a few times a second, and says which limit it broke."""

from __future__ import annotations

import os
import stat
import time

from .failures import ChildFailed
from .gpu_memory import CUDA_CONTEXT_BYTES, gpu_memory_bytes, largest_gpu_bytes
from .limits import MIB, Limits
from .processes import (
    ProcessUsage,
    mapped_removed_files,
    open_removed_files,
    tree_below,
    usage_of,
)

POLL_S = 0.05
_MAPS_POLL_S = 1.0  # a process waits while its maps are read
_GPU_POLL_S = 0.25
_MAX_DEPTH = 16
# The threads of a process that is being killed end one after the other.
_ENDING_S = 0.1
# Each may take as much as one file may; what a mapping of a removed file takes cannot be seen.
_MAX_MAPPED_REMOVED_FILES = 4


class Watchdog:
    """`base_bytes`: the zygote's memory when it forked, which is not the child's doing."""

    def __init__(self, zygote: int, base_bytes: int, scratch: int, limits: Limits) -> None:
        self._zygote = zygote
        self._base_bytes = base_bytes
        self._scratch = scratch
        self._limits = limits
        self._deadline = time.monotonic() + limits.wall_s
        self._next_look = 0.0
        self._next_look_at_maps = 0.0
        self._next_look_at_gpu = 0.0
        self._gpu_bytes = _allowed_gpu_bytes(limits)
        self.holds_candidate = False  # before, the child is trusted, and may hide its files
        self.peak_bytes = 0
        self.peak_gpu_bytes = 0  # where the driver tells
        self.output_bytes = 0

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raises ChildFailed for the first broken limit; looks into /proc every 50 ms only."""
        if self.left_s <= 0:
            raise ChildFailed("timeout", f"no answer within {self._limits.wall_s:g} s")
        if self.output_bytes > self._limits.output_bytes:
            raise ChildFailed("protocol", f"printed more than {self._limits.output_bytes} bytes")
        if time.monotonic() >= self._next_look:
            self.look()

    def look(self) -> None:
        """Measures now, whenever the last time was."""
        tree = self._check_processes()
        self._check_gpu(tree)
        self._check_scratch(tree)
        self._next_look = time.monotonic() + POLL_S

    def _check_processes(self) -> list[int]:
        tree = tree_below(self._zygote, self._limits.processes + 1)
        if len(tree) > self._limits.processes:
            raise ChildFailed("protocol", f"more than {self._limits.processes} processes")
        usages = _usages(tree)
        if not all(usage.has_first_thread for usage in usages):
            time.sleep(_ENDING_S)
            usages = _usages(tree)
        if not all(usage.has_first_thread for usage in usages):
            raise ChildFailed("protocol", "a process whose first thread has ended")
        threads = sum(usage.threads for usage in usages)
        if threads > self._limits.threads:
            raise ChildFailed("protocol", f"{threads} threads, {self._limits.threads} are allowed")
        # each process starts as a copy of the zygote's pages, with tables of its own
        memory = sum(
            max(0, usage.memory_bytes - self._base_bytes) + usage.table_bytes for usage in usages
        )
        self.peak_bytes = max(self.peak_bytes, memory)
        if memory > self._limits.memory_bytes:
            used, allowed = memory // MIB, self._limits.memory_bytes // MIB
            raise ChildFailed("oom", f"{used} MiB of memory, {allowed} are allowed")
        return tree

    def _check_gpu(self, tree: list[int]) -> None:
        if self._gpu_bytes is None or time.monotonic() < self._next_look_at_gpu:
            return
        self._next_look_at_gpu = time.monotonic() + _GPU_POLL_S
        held = gpu_memory_bytes(tree)
        self.peak_gpu_bytes = max(self.peak_gpu_bytes, held or 0)
        if held is not None and held > self._gpu_bytes:
            allowed = self._gpu_bytes // MIB
            raise ChildFailed("oom", f"{held // MIB} MiB of GPU memory, {allowed} are allowed")

    def _check_scratch(self, tree: list[int]) -> None:
        entries, size = _folder_usage(self._scratch, self._limits.scratch_entries)
        size += self._removed_bytes(tree)
        if entries > self._limits.scratch_entries:
            raise ChildFailed("protocol", f"more than {self._limits.scratch_entries} files")
        if size > self._limits.scratch_bytes:
            allowed = self._limits.scratch_bytes // MIB
            raise ChildFailed("protocol", f"{size // MIB} MiB of files, {allowed} are allowed")

    def _removed_bytes(self, tree: list[int]) -> int:
        """What files take that were removed while they were open."""
        if not self.holds_candidate:
            return 0
        try:
            found: dict[tuple[int, int], int] = {}
            for pid in tree:
                found |= open_removed_files(pid)
            if time.monotonic() >= self._next_look_at_maps:
                self._next_look_at_maps = time.monotonic() + _MAPS_POLL_S
                self._check_maps(tree)
        except PermissionError:
            raise ChildFailed("protocol", "a process that hides its open files") from None
        return sum(found.values())

    def _check_maps(self, tree: list[int]) -> None:
        folder = os.readlink(f"/proc/self/fd/{self._scratch}")
        mapped = {inode for pid in tree for inode in mapped_removed_files(pid, folder)}
        if len(mapped) > _MAX_MAPPED_REMOVED_FILES:
            raise ChildFailed("protocol", f"{len(mapped)} removed files are still mapped")


def _usages(tree: list[int]) -> list[ProcessUsage]:
    return [usage for pid in tree if (usage := usage_of(pid))]


def _allowed_gpu_bytes(limits: Limits) -> int | None:
    if limits.gpu_memory_fraction is None or (total := largest_gpu_bytes()) is None:
        return None
    return int(limits.gpu_memory_fraction * total) + CUDA_CONTEXT_BYTES


def _folder_usage(folder: int, at_most: int, depth: int = 0) -> tuple[int, int]:
    """Entries and bytes on disk below an open folder; stops counting beyond `at_most` entries."""
    if depth > _MAX_DEPTH:
        raise ChildFailed("protocol", f"folders more than {_MAX_DEPTH} deep")
    entries = size = 0
    for name in os.listdir(folder):
        entries += 1
        if entries > at_most:
            break
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            size += facts.st_blocks * 512
            if stat.S_ISDIR(facts.st_mode):
                inner_entries, inner_size = _inner_usage(folder, name, at_most - entries, depth)
                entries, size = entries + inner_entries, size + inner_size
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile
        except PermissionError:
            raise ChildFailed("protocol", "a folder that cannot be read") from None
    return entries, size


def _inner_usage(folder: int, name: str, at_most: int, depth: int) -> tuple[int, int]:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        return _folder_usage(inner, at_most, depth + 1)
    finally:
        os.close(inner)
