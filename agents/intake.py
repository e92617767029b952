"""From a proposal to a stored candidate: source check, novelty, one row (or one event) each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..db import DUPLICATE, INVALID, ArchitectureRow, DuplicateArchitecture, Store
from ..errors import CandidateRejected
from ..search_space.source_check import CheckedSource, check_source
from .board import Board, Candidate
from .proposers.proposal import Proposal
from .proposing import Outcome
from .restore import candidate_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """What became of a proposal. A candidate in state "rejected" failed the source check."""

    candidate: Candidate | None
    note: str


class Intake:
    """Admits proposals to one run; the only place where candidates are born."""

    def __init__(self, store: Store, run_id: str, board: Board, max_source_bytes: int) -> None:
        self._store, self._run_id, self._board = store, run_id, board
        self._max_source_bytes = max_source_bytes

    def admit(self, outcome: Outcome) -> Admission:
        """Stores the outcome of a request, its calls included, whatever it is."""
        if outcome.proposal is None:
            self._store.add_llm_calls(self._run_id, outcome.calls)
            reason = str(outcome.error)
            self._store.add_event(self._run_id, INVALID, {"reason": reason})
            return Admission(candidate=None, note=f"no usable proposal: {reason}")
        admission = self.admit_proposal(outcome.proposal, repaired=outcome.repaired)
        architecture_id = admission.candidate.id if admission.candidate else None
        self._store.add_llm_calls(self._run_id, outcome.calls, architecture_id)
        return admission

    def admit_proposal(
        self, proposal: Proposal, *, repaired: str | None = None, is_reference: bool = False
    ) -> Admission:
        """Checks and stores one proposal; `repaired` names the failed architecture it mends."""
        try:
            checked = check_source(proposal.source, max_bytes=self._max_source_bytes)
        except CandidateRejected as rejection:
            return self._refuse(proposal, rejection, repaired)
        try:
            row = self._store_row(proposal, checked, repaired, is_reference)
        except DuplicateArchitecture as duplicate:
            return self._pass_over(proposal, duplicate.existing_id)
        return Admission(candidate=self._remember(row, proposal), note=f"proposed {row.name}")

    def _refuse(
        self, proposal: Proposal, rejection: CandidateRejected, repaired: str | None
    ) -> Admission:
        text_hash = hashlib.sha256(proposal.source.encode("utf-8", "replace")).hexdigest()
        unchecked = CheckedSource(
            source=proposal.source,
            source_hash=text_hash,
            normalised_hash=text_hash,  # what does not parse has no normal form
            pattern="L",
            docstring=None,
        )
        try:
            row = self._store_row(proposal, unchecked, repaired, is_reference=False)
        except DuplicateArchitecture as duplicate:
            return self._pass_over(proposal, duplicate.existing_id)
        self._store.reject(row.id, rejection.check, rejection.reason)
        candidate = self._remember(row, proposal)
        candidate.state, candidate.reason = "rejected", str(rejection)
        return Admission(candidate=candidate, note=f"rejected {row.name}: {rejection}")

    def _pass_over(self, proposal: Proposal, existing_id: str) -> Admission:
        data = {"name": proposal.name, "existing_id": existing_id}
        self._store.add_event(self._run_id, DUPLICATE, data)
        existing = self._board[existing_id].name
        return Admission(candidate=None, note=f"{proposal.name} is the same as {existing}")

    def _store_row(
        self,
        proposal: Proposal,
        checked: CheckedSource,
        repaired: str | None,
        is_reference: bool,
    ) -> ArchitectureRow:
        mended = ((repaired, "repair"),) if repaired else ()
        return self._store.add_architecture(
            self._run_id,
            name=proposal.name,
            motivation=proposal.motivation,
            expectation=proposal.expectation,
            origin=proposal.origin,
            source=checked.source,
            source_hash=checked.source_hash,
            normalised_hash=checked.normalised_hash,
            pattern=checked.pattern,
            genome=proposal.genome,
            parents=(*proposal.parents, *mended),
            is_reference=is_reference,
            family=proposal.family,
        )

    def _remember(self, row: ArchitectureRow, proposal: Proposal) -> Candidate:
        candidate = candidate_of(row, tuple(parent for parent, _ in proposal.parents))
        self._board.add(candidate)
        return candidate
