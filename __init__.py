"""linearch: discovers linear-attention architectures and hands them back as nn.Modules.

Importing this package loads neither torch nor anything else heavy; the public names load on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import load_mixer, load_model, open_run

__version__ = "0.1.0"
__all__ = ["__version__", "load_mixer", "load_model", "open_run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
