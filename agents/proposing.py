"""Keeps proposals ahead of the workers: requests in flight on threads, results as plain values."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from ..errors import ProposalError
from .proposers.proposal import Evidence, LLMCall, Proposal, Proposer


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A request that ended: a proposal, or the error. `repaired` names what it mends."""

    proposal: Proposal | None
    calls: tuple[LLMCall, ...] = ()
    error: ProposalError | None = None
    repaired: str | None = None  # id of the architecture that failed


class ProposalDesk:
    """Asks one proposer, several requests at a time where it allows that."""

    def __init__(self, proposer: Proposer, *, next_index: int) -> None:
        self._proposer = proposer
        self._next_index = next_index
        self.concurrency = proposer.concurrency
        self._threads = ThreadPoolExecutor(proposer.concurrency, thread_name_prefix="proposer")
        self._pending: dict[Future[Proposal | None], str | None] = {}

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.concurrency

    def ask(self, evidence: Evidence) -> None:
        """Requests one new proposal."""
        future = self._threads.submit(self._proposer.propose, evidence, self._next_index)
        self._next_index += 1
        self._pending[future] = None

    def ask_repair(self, proposal: Proposal, check: str, reason: str, failed_id: str) -> None:
        """Requests a mended version of a proposal that failed `check`."""
        future = self._threads.submit(self._proposer.repair, proposal, check, reason)
        self._pending[future] = failed_id

    def collect(self) -> list[Outcome]:
        """The requests that ended since the last call; never waits.

        A repair that the proposer does not offer is no outcome.
        """
        ended = [future for future in self._pending if future.done()]
        outcomes = [self._outcome(future, self._pending.pop(future)) for future in ended]
        return [outcome for outcome in outcomes if outcome.proposal or outcome.error]

    def wait(self, timeout_s: float) -> None:
        """Returns when a request has ended, or after `timeout_s`."""
        if self._pending:
            wait(list(self._pending), timeout=timeout_s, return_when="FIRST_COMPLETED")
        else:
            threading.Event().wait(timeout_s)

    def close(self) -> None:
        """Drops what has not started; a request under way ends on its own and is ignored."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _outcome(future: Future[Proposal | None], repaired: str | None) -> Outcome:
        try:
            proposal = future.result()
        except ProposalError as error:
            calls = tuple(getattr(error, "calls", ()))
            return Outcome(proposal=None, calls=calls, error=error, repaired=repaired)
        calls = proposal.llm_calls if proposal is not None else ()
        return Outcome(proposal=proposal, calls=calls, repaired=repaired)
