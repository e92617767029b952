"""A search for modules that takes what may not be read for not installed.

A confined process may see the name of a file that it may not open. Imported, such a file raises
PermissionError, for which no library that imports something optional is prepared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class ReadableFinder(PathFinder):
    """Finds what PathFinder does, less what cannot be opened."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target)
        return None if spec is None or _is_refused(spec) else spec


def import_only_readable() -> None:
    """From now on, in this process and its forks."""
    sys.meta_path[:] = [ReadableFinder if f is PathFinder else f for f in sys.meta_path]


def _is_refused(spec: ModuleSpec) -> bool:
    if not spec.has_location or spec.origin is None:  # a folder without code of its own
        return False
    try:
        with open(spec.origin, "rb"):
            return False
    except PermissionError:
        return True
