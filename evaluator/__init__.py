"""Judging architectures: gates, training, scoring and statistics, with candidates kept apart.

The public names load on use, so that plain results can be imported without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .results import GateResult, Judgement, TrialResult, TrialSpec, TrialStatus

if TYPE_CHECKING:
    from .corpus import Corpus, load_corpus
    from .judge import Judge
    from .ray_pool import Finished, JudgeJob, RayPool, TrialJob

_LAZY = {
    "Corpus": "corpus",
    "Finished": "ray_pool",
    "Judge": "judge",
    "JudgeJob": "ray_pool",
    "RayPool": "ray_pool",
    "TrialJob": "ray_pool",
    "load_corpus": "corpus",
}

__all__ = [
    "Corpus",
    "Finished",
    "GateResult",
    "Judge",
    "JudgeJob",
    "Judgement",
    "RayPool",
    "TrialJob",
    "TrialResult",
    "TrialSpec",
    "TrialStatus",
    "load_corpus",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
