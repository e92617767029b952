"""What one part of a mixer contributes to its source, and how a long call is laid out."""

from __future__ import annotations

from dataclasses import dataclass

_LINE_LENGTH = 100 - 8  # method bodies are indented by eight


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Lines of `__init__` and of `forward`, without the methods' own indentation."""

    init: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()


def call(head: str, *arguments: str) -> tuple[str, ...]:
    """`head(arguments)` on one line if it fits, else as ruff format would break it."""
    joined = ", ".join(arguments)
    if len(f"{head}({joined})") <= _LINE_LENGTH:
        return (f"{head}({joined})",)
    if len(joined) + 4 <= _LINE_LENGTH:
        return f"{head}(", f"    {joined}", ")"
    return f"{head}(", *(f"    {argument}," for argument in arguments), ")"
