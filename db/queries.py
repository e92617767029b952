"""The read side of a store, as one object: everything that leaderboards and pages render."""

from __future__ import annotations

from .details import DetailQueries
from .leaderboard import LeaderboardQueries
from .progress import ProgressQueries


class Queries(LeaderboardQueries, DetailQueries, ProgressQueries):
    """Read-only, one snapshot a call; returns frozen rows (`views`, `rows`)."""
