"""Overwrites what the allocators hold free, where text that a process has given up would stay.

glibc does it at once while its tunable `perturb` is on, but for small blocks that it keeps at hand
for the same thread. Those, and what Python's own allocator holds, are taken once and given back.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .limits import MIB

PERTURB = "glibc.malloc.perturb=1"  # for the environment of a process that is to begin so
_M_PERTURB = -6
_STEP, _SMALLEST = 16, 48  # of blocks that hold text, in bytes
_LARGEST_OF_PYTHON, _LARGEST_AT_HAND = 512, 1040
# More than is free in a process that has loaded torch: some 10 MiB.
_WHOLE_POOLS_BYTES, _OF_EACH_SIZE_BYTES = 64 * MIB, 4 * MIB


def overwrite_freed_memory() -> None:
    """Ends what PERTURB began, too, which would slow all that follows down."""
    _fill(_LARGEST_OF_PYTHON, _WHOLE_POOLS_BYTES)
    for block_bytes in range(_SMALLEST, _LARGEST_AT_HAND + 1, _STEP):
        _fill(block_bytes, _OF_EACH_SIZE_BYTES)
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # another C library knows neither
        set_option(_M_PERTURB, 0)
    tunables = os.environ.get("GLIBC_TUNABLES", "").split(":")
    os.environ["GLIBC_TUNABLES"] = ":".join(one for one in tunables if one != PERTURB)


def _fill(block_bytes: int, n_bytes: int) -> None:
    """Takes this much memory in blocks of this size, and gives it back."""
    length = block_bytes - sys.getsizeof(b"")
    # Not bytes(length): calloc passes by what is kept at hand.
    _ = [b"\0" * length for _ in range(n_bytes // block_bytes)]
