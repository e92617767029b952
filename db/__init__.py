"""The store of runs: one SQL database and its blobs."""

from __future__ import annotations

from .architecture_records import DuplicateArchitecture
from .ids import new_id
from .journal_records import DUPLICATE, INVALID
from .location import default_store_url
from .queries import Queries
from .quotes import best_shares
from .rows import (
    ArchitectureRow,
    ArchitectureState,
    EventRow,
    RunRow,
    RunState,
    StatisticRow,
    TrialPurpose,
    TrialRow,
    TrialState,
)
from .run_records import this_process
from .store import Store
from .trial_leases import Orphans
from .trial_records import CURVE
from .views import (
    RECALL,
    ArchitectureDetail,
    BestPoint,
    Funnel,
    GateRow,
    LeaderboardRow,
    Lineage,
    LineageEdge,
    LineageNode,
    LLMCallRow,
    Note,
    Relative,
    Score,
    Spent,
    TrialDetail,
)

__all__ = [
    "CURVE",
    "DUPLICATE",
    "INVALID",
    "RECALL",
    "ArchitectureDetail",
    "ArchitectureRow",
    "ArchitectureState",
    "BestPoint",
    "DuplicateArchitecture",
    "EventRow",
    "Funnel",
    "GateRow",
    "LLMCallRow",
    "LeaderboardRow",
    "Lineage",
    "LineageEdge",
    "LineageNode",
    "Note",
    "Orphans",
    "Queries",
    "Relative",
    "RunRow",
    "RunState",
    "Score",
    "Spent",
    "StatisticRow",
    "Store",
    "TrialDetail",
    "TrialPurpose",
    "TrialRow",
    "TrialState",
    "best_shares",
    "default_store_url",
    "new_id",
    "this_process",
]
