"""Keeps proposals ahead of the workers: requests in flight on threads, results as plain values."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
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
    """Asks one proposer, several requests at a time where it allows that.

    The threads are daemons: a model may think for an hour, and a search that ends does not wait.
    """

    def __init__(self, proposer: Proposer, *, next_index: int) -> None:
        self._proposer = proposer
        self._next_index = next_index
        self._ended: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self.concurrency = proposer.concurrency
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.concurrency

    def ask(self, evidence: Evidence) -> None:
        """Requests one new proposal."""
        index = self._next_index
        self._next_index += 1
        self._start(lambda: self._proposer.propose(evidence, index), repaired=None)

    def ask_repair(self, proposal: Proposal, check: str, reason: str, failed_id: str) -> None:
        """Requests a mended version of a proposal that failed `check`."""
        self._start(lambda: self._proposer.repair(proposal, check, reason), repaired=failed_id)

    def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
        """The requests that ended, waiting up to `timeout_s` for a first one.

        A repair that the proposer does not offer is no outcome. Raises what a proposer raises
        beside ProposalError: that is a fault of ours.
        """
        outcomes = []
        try:
            while True:
                ended = self._ended.get(timeout=timeout_s) if timeout_s else self._ended.get(False)
                timeout_s = 0.0
                self.in_flight -= 1
                if isinstance(ended, BaseException):
                    raise ended
                if ended.proposal is not None or ended.error is not None:
                    outcomes.append(ended)
        except queue.Empty:
            return outcomes

    def _start(self, request: Callable[[], Proposal | None], *, repaired: str | None) -> None:
        def answer() -> None:
            try:
                proposal = request()
            except ProposalError as error:
                calls = tuple(getattr(error, "calls", ()))
                ended = Outcome(proposal=None, calls=calls, error=error, repaired=repaired)
                self._ended.put(ended)
            except BaseException as error:
                self._ended.put(error)
            else:
                calls = proposal.llm_calls if proposal is not None else ()
                self._ended.put(Outcome(proposal=proposal, calls=calls, repaired=repaired))

        self.in_flight += 1
        threading.Thread(target=answer, name="proposer", daemon=True).start()
