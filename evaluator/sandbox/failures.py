"""The two ways a sandboxed job can fail: the candidate's own doing, or the machinery's."""

from __future__ import annotations

from typing import Literal

FailureKind = Literal["raised", "timeout", "stalled", "oom", "crashed", "protocol"]


class ChildFailed(Exception):
    """The candidate did not answer, and it is booked on the candidate.

    `kind`: it raised an exception, ran past its deadline, fell silent on the way, took too much
    memory, died, or broke the rules of the boundary (malformed or oversized replies, floods of
    output, files or processes).
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind: FailureKind = kind
        self.message = message


def printable(text: str) -> str:
    """`text` without what a terminal would obey or a database refuse: control characters, NUL."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class SandboxFault(Exception):
    """The machinery failed (no zygote, no fork, a full disk); never booked on the candidate."""
