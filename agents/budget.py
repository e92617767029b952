"""What a search may spend, what it has spent, and whether one more trial fits in."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from ..config import BudgetConfig

_N_LAST = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Totals of a run over all its sessions. `usd` counts calls of known price only."""

    elapsed_s: float
    gpu_s: float
    usd: float


class Budget:
    """Answers, for one run, why it must stop (or that it need not)."""

    def __init__(self, limits: BudgetConfig) -> None:
        self.limits = limits

    def exhausted(self, spent: Spent) -> str | None:
        """A sentence naming the limit that is met, or None."""
        limits = self.limits
        if limits.max_minutes is not None and spent.elapsed_s >= 60 * limits.max_minutes:
            return f"the time budget of {limits.max_minutes:g} minutes is spent"
        if limits.max_gpu_hours is not None and spent.gpu_s >= 3600 * limits.max_gpu_hours:
            return f"the budget of {limits.max_gpu_hours:g} GPU-hours is spent"
        if limits.max_usd is not None and spent.usd >= limits.max_usd:
            return f"the budget of ${limits.max_usd:g} is spent"
        return None

    def remaining_s(self, spent: Spent) -> float | None:
        """Seconds left on the wall clock, or None without a time limit."""
        if self.limits.max_minutes is None:
            return None
        return max(0.0, 60 * self.limits.max_minutes - spent.elapsed_s)


class Forecast:
    """Expects a job to take what the last few of its kind took (their median), since others may use
    the machine by now; a training whose kind has not ended yet, what trainings took per token."""

    def __init__(self) -> None:
        self._s_by_kind: dict[Hashable, deque[float]] = defaultdict(_last_few)
        self._s_per_token = _last_few()

    def observe(self, kind: Hashable, wall_s: float | None, *, tokens: int = 0) -> None:
        """`tokens` is what was trained on: none where nothing was."""
        if wall_s is None:
            return
        self._s_by_kind[kind].append(wall_s)
        if tokens > 0:
            self._s_per_token.append(wall_s / tokens)

    def expected_s(self, kind: Hashable, *, tokens: int = 0) -> float | None:
        """Seconds; None before the first job that tells."""
        if kind in self._s_by_kind:
            return statistics.median(self._s_by_kind[kind])
        if not tokens or not self._s_per_token:
            return None
        return tokens * statistics.median(self._s_per_token)


def _last_few() -> deque[float]:
    return deque(maxlen=_N_LAST)


def makespan_s(busy_s: Iterable[float], jobs_s: Iterable[float]) -> float:
    """When all has ended: each worker is busy for so long, each job in turn goes to the first that
    is free."""
    free_at_s = list(busy_s)
    heapq.heapify(free_at_s)
    for job_s in jobs_s:
        heapq.heapreplace(free_at_s, free_at_s[0] + job_s)
    return max(free_at_s)
