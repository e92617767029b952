"""Proposes architectures written by a language model that sees what the run has measured.

Parents are chosen by non-dominated rank, like the grammar's. What a model writes is only ever text:
it becomes a candidate by passing the same checks and gates as every other source.
"""

from __future__ import annotations

import dataclasses
import functools
import random

from ...config import RunConfig
from ...search_space.library import BASELINES, baseline_source
from ..llm.client import LLMClient, Message, as_text
from ..llm.context import (
    EXAMPLE,
    MAX_PROMPT_CHARS,
    Brief,
    is_reference,
    proposal_prompt,
    repair_prompt,
    system_prompt,
)
from ..llm.cost import Forecast, forecast
from ..llm.errors import MalformedReply, ProposalFailed
from ..llm.prompts import DIRECTIONS, REFORMAT
from ..llm.schema import CandidateReply, parse_reply, response_format
from ..objectives import to_point
from ..selection import best_first, choose_parents
from .proposal import Evidence, LLMCall, Measured, ParentKind, Proposal

_QUOTED_REPLY_CHARS = 20_000  # of a malformed reply, shown to the model again


class LLMProposer:
    """A Proposer. Every request stands on exactly one proposal's `llm_calls` or error's `calls`."""

    def __init__(self, config: RunConfig, client: LLMClient | None = None) -> None:
        self._config = config
        self._client = client or LLMClient(config.proposer.llm)
        self.concurrency = config.proposer.llm.requests_in_flight

    def check(self) -> tuple[LLMCall, ...]:
        """Raises PreflightError unless key, endpoint and model are there; see LLMClient.check."""
        return self._client.check()

    def first_prompt(self, evidence: Evidence) -> str:
        """The conversation that the first proposal would start with; sends nothing."""
        prompt, _ = self._prompt(self._brief(evidence, index=0))
        return as_text(self._conversation(prompt))

    def forecast(self, evidence: Evidence, candidates: int) -> Forecast:
        """Calls and dollars that so many candidates may take; sends nothing."""
        prompt_chars = len(self.first_prompt(evidence))
        return forecast(self._config.proposer.llm, candidates, prompt_chars)

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        """A new candidate; raises ProposalFailed, of which ProviderRefused means: stop asking."""
        brief = self._brief(evidence, index)
        prompt, shown = self._prompt(brief)
        calls: list[LLMCall] = []
        try:
            reply = self._ask_twice(self._conversation(prompt), calls)
        except ProposalFailed as error:
            error.calls = tuple(calls)
            raise
        return _proposal(reply, parents=_parents(brief, shown), calls=calls)

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """The proposal mended once; None if it was mended before or no model wrote it."""
        if proposal.origin != "llm" or any(call.role == "repair" for call in proposal.llm_calls):
            return None
        calls: list[LLMCall] = []
        try:
            prompt = repair_prompt(proposal, check, reason)
            reply = self._ask(self._conversation(prompt), "repair", calls)
        except ProposalFailed as error:
            error.calls = tuple(calls)
            raise
        return _proposal(reply, parents=proposal.parents, calls=calls)

    def _ask_twice(self, messages: list[Message], calls: list[LLMCall]) -> CandidateReply:
        """A candidate from the first reply, or from a second one if the first was malformed."""
        try:
            return self._ask(messages, "propose", calls)
        except MalformedReply as error:
            bad_reply = (calls[-1].reply or "")[:_QUOTED_REPLY_CHARS]
            again = REFORMAT.substitute(problem=str(error))
            messages = [
                *messages,
                {"role": "assistant", "content": bad_reply or "(nothing)"},
                {"role": "user", "content": again},
            ]
        return self._ask(messages, "reformat", calls)

    def _ask(self, messages: list[Message], role: str, calls: list[LLMCall]) -> CandidateReply:
        answer = self._client.ask(messages, role, calls.append, response_format())
        try:
            if answer.problem is not None:
                raise MalformedReply(answer.problem)
            return parse_reply(answer.text, self._config.gates.max_source_bytes)
        except MalformedReply as error:
            calls[-1] = dataclasses.replace(calls[-1], error=str(error))
            raise

    def _conversation(self, prompt: str) -> list[Message]:
        return [
            {"role": "system", "content": self._system},
            {"role": "user", "content": prompt},
        ]

    def _prompt(self, brief: Brief) -> tuple[str, tuple[str, ...]]:
        return proposal_prompt(brief, MAX_PROMPT_CHARS - len(self._system))

    @functools.cached_property
    def _system(self) -> str:
        return system_prompt(self._config)

    def _brief(self, evidence: Evidence, index: int) -> Brief:
        rng = random.Random(f"{self._config.seed}:{index}")
        rows = (*evidence.candidates, *_usable_baselines(evidence))
        parents = choose_parents(rows, evidence.objectives, 1, rng, fitness=evidence.fitness)
        return Brief(
            parent=parents[0] if parents else _unmeasured_parent(evidence, rng),
            ranked=tuple(_ranked(rows, evidence.objectives)),
            evidence=evidence,
            direction=rng.choice(DIRECTIONS),
        )


def _ranked(rows: tuple[Measured, ...], objectives: tuple[str, ...]) -> list[Measured]:
    """What was measured, best first; a higher rung goes before, as scores differ between rungs."""
    ranked = []
    for rung in sorted({row.rung for row in rows if row.rung is not None}, reverse=True):
        peers = [row for row in rows if row.rung == rung]
        order = best_first([to_point(peer.metrics, objectives) for peer in peers])
        ranked += [peers[i] for i in order]
    return ranked


def _usable_baselines(evidence: Evidence) -> list[Measured]:
    """Baselines a candidate may be derived from: not the references, whose state may grow."""
    return [row for row in evidence.baselines if not is_reference(row)]


def _unmeasured_parent(evidence: Evidence, rng: random.Random) -> Measured:
    """A baseline to start from before anything has been measured, or even stored."""
    stored = _usable_baselines(evidence)
    if stored:
        return rng.choice(stored)
    baseline = BASELINES[EXAMPLE]
    return Measured(
        id="",
        name=baseline.name,
        motivation=f"{baseline.title} (arXiv {baseline.paper}): {baseline.recurrence}",
        source=baseline_source(baseline.name),
        origin="baseline",
        state="proposed",
        reason=None,
        genome=None,
        rung=None,
    )


def _parents(brief: Brief, shown: tuple[str, ...]) -> tuple[tuple[str, ParentKind], ...]:
    mutated: list[tuple[str, ParentKind]] = [(brief.parent.id, "mutation")]
    inspired: list[tuple[str, ParentKind]] = [(name, "inspiration") for name in shown]
    return tuple(parent for parent in (*mutated, *inspired) if parent[0])


def _proposal(
    reply: CandidateReply, *, parents: tuple[tuple[str, ParentKind], ...], calls: list[LLMCall]
) -> Proposal:
    return Proposal(
        name=reply.name,
        motivation=reply.motivation,
        expectation=reply.expectation,
        source=reply.code,
        origin="llm",
        parents=parents,
        llm_calls=tuple(calls),
    )
