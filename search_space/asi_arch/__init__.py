"""Files in the convention of ASI-Arch (arXiv 2507.18074), read and run without its libraries.

Names load on first use, so checking a file loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import load_asi_arch_class
    from .source import (
        auxiliary_outputs,
        call_counters,
        check_asi_arch_source,
        is_asi_arch_source,
    )

_HOME = {
    "auxiliary_outputs": "source",
    "call_counters": "source",
    "check_asi_arch_source": "source",
    "is_asi_arch_source": "source",
    "load_asi_arch_class": "adapter",
}
__all__ = [
    "auxiliary_outputs",
    "call_counters",
    "check_asi_arch_source",
    "is_asi_arch_source",
    "load_asi_arch_class",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
