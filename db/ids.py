"""ULIDs: 26 characters whose order as text is the order in which they were made.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (github.com/ulid/spec). Within one
process ids grow strictly, also inside a millisecond and when the clock is set back.
"""

from __future__ import annotations

import os
import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0
_last_pid = 0


def new_id() -> str:
    """A fresh ULID; later calls of this process give later texts."""
    global _last, _last_pid
    with _lock:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        is_same_process = os.getpid() == _last_pid  # a fork must not count on from its parent's id
        _last = max(fresh, _last + 1) if is_same_process else fresh
        _last_pid = os.getpid()
        return _encode(_last)


def _encode(value: int) -> str:
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
