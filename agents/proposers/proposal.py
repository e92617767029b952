"""What a proposer is and what it hands to the search: source code with its reasons and parents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ...errors import ProposalError

ParentKind = Literal["mutation", "crossover", "inspiration"]


class NothingLeft(ProposalError):
    """The proposer has no more to propose, now or later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """One candidate as proposed: `source` holds one `Mixer` under the contract."""

    name: str
    motivation: str
    expectation: str
    source: str
    origin: str  # "grammar", "random", "llm", "file" or "baseline"
    parents: tuple[tuple[str, ParentKind], ...] = ()  # (architecture id, how)
    genome: dict[str, Any] | None = None
    family: str | None = None  # e.g. "gated delta, scalar decay"
    llm_calls: tuple[LLMCall, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LLMCall:
    """One request to an endpoint, as stored; unknown counts and costs are None."""

    role: str
    model: str
    prompt: str
    reply: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One architecture of this run as the proposers see it, best rung first to be filled."""

    id: str
    name: str
    motivation: str
    source: str
    origin: str
    state: str  # "rejected", "sound", "measured", "failed", "quarantined"
    reason: str | None  # why rejected, failed or quarantined
    genome: dict[str, Any] | None
    rung: int | None  # the highest rung with a score
    metrics: dict[str, float | None] = field(default_factory=dict)  # at that rung
    rung_0_val_bpb: float | None = None
    fitness: float | None = None  # by the run's fitness, on the highest rung; higher is better
    parent_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a run knows when a proposal is asked for; rebuilt from the store's rows each time."""

    candidates: tuple[Measured, ...]
    baselines: tuple[Measured, ...]
    objectives: tuple[str, ...]
    fitness: str = "pareto"


class Proposer(Protocol):
    """Writes one candidate. Called from several threads if `concurrency` is above 1.

    `index` counts this run's proposals from 0 and seeds all randomness with the run's seed, so a
    resumed run draws new proposals, not old ones. Raises ProposalError if none could be made, and
    NothingLeft if there will never be another.
    """

    concurrency: int

    def propose(self, evidence: Evidence, index: int) -> Proposal: ...

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """The proposal mended after a check or gate failed, or None if this proposer cannot."""
        ...
