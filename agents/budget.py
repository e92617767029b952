"""What a search may spend, what it has spent, and whether one more trial fits in."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ..config import BudgetConfig


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
    """Expects a trial to take what the trials so far took per token (their median)."""

    def __init__(self) -> None:
        self._s_per_token: list[float] = []

    def observe(self, tokens: int, wall_s: float | None) -> None:
        if wall_s is not None and tokens > 0:
            self._s_per_token.append(wall_s / tokens)

    def expected_s(self, tokens: int) -> float | None:
        """Seconds a trial of so many tokens should take; None before the first one ended."""
        if not self._s_per_token:
            return None
        return tokens * statistics.median(self._s_per_token)
