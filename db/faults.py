"""What a database driver's error means for the user, in one sentence with what to do."""

from __future__ import annotations

_MEANINGS = (
    ("locked", "is locked by another process for too long; stop that process and try again"),
    ("readonly", "cannot be written; check the permissions of the file and of its folder"),
    ("read-only", "cannot be written; check its permissions"),
    ("disk is full", "cannot grow because the disk is full; free some space and resume the run"),
    ("disk i/o error", "met a disk error; check free space and the disk, then resume the run"),
    ("not a database", "is not an SQLite database; name another file with --store"),
    ("malformed", "is damaged; restore a copy, or start a new store with --store"),
    ("unable to open", "cannot be opened; check that its folder exists and may be written"),
    ("permission denied", "refuses this user; check the user's rights"),
    ("authentication failed", "refuses this user or password; check the URL"),
    ("does not exist", "does not exist; create the database or check the URL"),
    (
        "connection",
        "cannot be reached; check the URL and that the server runs, then resume the run",
    ),
)


def explain(place: str, message: str) -> str:
    """`message` of a driver about the store at `place`, as a sentence."""
    first_line = next(iter(message.strip().splitlines()), "no message")
    lowered = message.lower()
    for sign, meaning in _MEANINGS:
        if sign in lowered:
            return f"The store {place} {meaning} ({first_line})."
    return f"The store {place} failed: {first_line}."
