"""Judging architectures: gates, training, scoring and statistics, with candidates kept apart.

The public names load on use, so that plain results can be imported without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .results import GateResult, Judgement, TrialResult, TrialSpec, TrialStatus

if TYPE_CHECKING:
    from .company import Pool
    from .corpus import Corpus, load_corpus, validation_windows
    from .correlation import Correlation, kendall, spearman
    from .judge import Judge
    from .ray_pool import Finished, JudgeJob, TrialJob
    from .statistics import (
        NoiseFloor,
        noise_deviations,
        noise_floor,
        rank_with_ties,
        resolution_bpb,
    )
    from .workers import open_workers

_LAZY = {
    "Corpus": "corpus",
    "Correlation": "correlation",
    "Finished": "ray_pool",
    "Judge": "judge",
    "JudgeJob": "ray_pool",
    "NoiseFloor": "statistics",
    "Pool": "company",
    "TrialJob": "ray_pool",
    "kendall": "correlation",
    "load_corpus": "corpus",
    "noise_deviations": "statistics",
    "noise_floor": "statistics",
    "open_workers": "workers",
    "rank_with_ties": "statistics",
    "resolution_bpb": "statistics",
    "spearman": "correlation",
    "validation_windows": "corpus",
}

__all__ = [
    "Corpus",
    "Correlation",
    "Finished",
    "GateResult",
    "Judge",
    "JudgeJob",
    "Judgement",
    "NoiseFloor",
    "Pool",
    "TrialJob",
    "TrialResult",
    "TrialSpec",
    "TrialStatus",
    "kendall",
    "load_corpus",
    "noise_deviations",
    "noise_floor",
    "open_workers",
    "rank_with_ties",
    "resolution_bpb",
    "spearman",
    "validation_windows",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
