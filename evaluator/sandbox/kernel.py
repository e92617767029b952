"""The two ways into the kernel that Python has no name for: prctl and a raw system call."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)


class LayerMissing(Exception):
    """A layer of the confinement cannot be had here; the message says why and what would help."""


def prctl(option: int, *arguments: int) -> int:
    """Raises OSError."""
    padded = (ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:4])
    return _checked(_LIBC.prctl(option, *padded), f"prctl({option})")


def system_call(number: int, *arguments: Any) -> int:
    """Arguments are integers, None or ctypes pointers. Raises OSError."""
    passed = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return _checked(_LIBC.syscall(ctypes.c_long(number), *passed), f"system call {number}")


def unshare(flags: int) -> None:
    """Raises OSError."""
    _checked(_LIBC.unshare(ctypes.c_int(flags)), "unshare")


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
