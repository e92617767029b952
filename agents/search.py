"""The search: proposals in, jobs out, results booked, until the budget or the work is spent.

One thread drives it and alone writes to the store. Nothing is remembered here that the store does
not hold, but for requests in flight, so a killed run continues from its rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ..config import RunConfig
from ..db import Store
from ..errors import LinearchError
from ..evaluator import Pool
from .board import Board
from .budget import Budget, Spent
from .checkpoints import drop_checkpoints, left_by_failures
from .dispatch import Dispatcher, Ended
from .findings import refresh_findings
from .intake import Admission, Intake
from .llm.errors import ProviderRefused
from .progress import Observer
from .proposers.proposal import NothingLeft, Proposal, Proposer
from .proposing import Outcome, ProposalDesk
from .quarantine import quarantine_suspects
from .rates import EDGE_RATE, edge_rows
from .standings import refresh_statistics, snapshot

EndState = Literal["finished", "interrupted", "failed"]

_WAIT_S = 0.2
_REFRESH_S = 2.0
_HEARTBEAT_S = 5.0
_FRUITLESS_LIMIT = 25  # proposals in a row without a new sound candidate
_INFRA_LIMIT = 8  # jobs in a row that the machinery failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a search ended, in the store's words; `elapsed_s` is over all its sessions."""

    state: EndState
    reason: str
    elapsed_s: float
    budget_is_spent: bool = False


class Search:
    """Drives one run that this process has claimed (`epoch`)."""

    def __init__(
        self,
        *,
        config: RunConfig,
        store: Store,
        run_id: str,
        epoch: int,
        board: Board,
        pool: Pool,
        proposer: Proposer,
        observer: Observer,
        gpu_share: float | None = None,
    ) -> None:
        self._config, self._store, self._run_id, self._epoch = config, store, run_id, epoch
        self._board, self._pool, self._observer = board, pool, observer
        self._budget = Budget(config.budget)
        self._desk = ProposalDesk(proposer, next_index=self._count_past_proposals())
        self._intake = Intake(store, run_id, board, config.gates.max_source_bytes)
        self._dispatcher = Dispatcher(
            config=config,
            store=store,
            run_id=run_id,
            board=board,
            pool=pool,
            gpu_share=gpu_share,
        )
        self._repairable: dict[str, Proposal] = {}  # proposals of this session by architecture
        self._fruitless = self._infra_failures = 0
        self._closing: str | None = None
        self._is_out_of_ideas = False
        self._draining: str | None = None
        self._budget_is_spent = False
        self._state: EndState = "finished"
        self._interrupts = 0
        self._started_s = time.monotonic()
        self._earlier_s = store.run(run_id).elapsed_s or 0.0
        self._refreshed_s = self._heartbeat_s = 0.0

    def interrupt(self) -> None:
        """Asks the search to finish what runs (first call) or to stop at once (second)."""
        self._interrupts += 1

    @property
    def elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_s

    def run(self) -> Ending:
        """Returns when the work is done, the budget is spent or the search was interrupted."""
        self._quarantine()  # a driver that was killed may have booked a score and no more
        while not self._is_over():
            self._admit_proposals()
            self._decide_to_drain()
            self._decide_to_close()
            if self._draining is None:
                self._request_proposals()
                self._start_jobs()
            self._collect()
            self._refresh()
        self._refresh(force=True)
        refresh_findings(self._store, self._run_id, self._config, self._board)
        edges = list(edge_rows(self._board, self._config))
        self._store.replace_statistics(self._run_id, EDGE_RATE, edges)
        ending = self._ending()
        if ending.state == "finished":
            drop_checkpoints(self._store, left_by_failures(self._board))
        return ending

    def _start_jobs(self) -> None:
        remaining_s = self._budget.remaining_s(self._spent())
        while self._dispatcher.start_next(remaining_s):
            pass
        if self._closing is None and self._dispatcher.is_time_to_close(remaining_s):
            self._close(f"the time budget of {self._config.budget.max_minutes:g} minutes is spent")
            self._budget_is_spent = True
            self._start_jobs()
            return
        if not self._dispatcher.running and self._dispatcher.has_work():
            why = "no further trial fits into the time that is left"
            if self._closing is None:
                self._close(why)
            else:
                self._draining = why

    def _is_over(self) -> bool:
        if self._interrupts > 1:
            return True
        if self._dispatcher.running:
            return False
        if self._draining is not None:
            return True
        if self._closing is None:
            return False
        return not self._dispatcher.has_work()

    def _wants_proposals(self) -> bool:
        """Whether another proposal is needed to reach the wanted number of sound candidates."""
        if self._closing is not None or self._is_out_of_ideas:
            return False
        wanted = self._config.budget.max_candidates
        return wanted is None or self._board.count_sound() + self._count_pending() < wanted

    def _count_pending(self) -> int:
        return sum(
            candidate.state in {"proposed", "judging"} for candidate in self._board.proposals
        )

    def _request_proposals(self) -> None:
        """Keeps the workers' next jobs ready and no more: later proposals know more."""
        enough = max(self._pool.slots, self._desk.concurrency)
        ahead = self._dispatcher.backlog() + self._desk.in_flight
        while self._desk.has_room and ahead < enough and self._may_request():
            self._desk.ask(self._board.evidence())
            ahead += 1

    def _may_request(self) -> bool:
        if self._closing is not None or self._is_out_of_ideas:
            return False
        wanted = self._config.budget.max_candidates
        if wanted is None:
            return True
        expected = self._board.count_sound() + self._count_pending() + self._desk.in_flight
        return expected < wanted

    def _admit_proposals(self) -> None:
        idle = not self._dispatcher.running and self._refreshed_s > 0
        for outcome in self._desk.collect(_WAIT_S if idle else 0.0):
            if isinstance(outcome.error, NothingLeft):
                self._is_out_of_ideas = True
                continue
            admission = self._intake.admit(outcome)
            self._observer.note(admission.note)
            self._after_admission(outcome, admission)

    def _after_admission(self, outcome: Outcome, admission: Admission) -> None:
        if isinstance(outcome.error, ProviderRefused):
            self._draining = f"the language model's endpoint refused: {outcome.error}"
            self._state = "failed"
        candidate = admission.candidate
        if candidate is None or candidate.state == "rejected":
            self._fruitless += 1
        if candidate is not None and outcome.proposal is not None and outcome.repaired is None:
            self._repairable[candidate.id] = outcome.proposal
            if candidate.state == "rejected":
                self._repair(candidate.id, "source")

    def _repair(self, architecture_id: str, check: str) -> None:
        """One repair round for each proposal; the mended version is a candidate of its own."""
        proposal = self._repairable.pop(architecture_id, None)
        if proposal is not None and self._draining is None and self._closing is None:
            reason = self._board[architecture_id].reason or check
            self._desk.ask_repair(proposal, check, reason, architecture_id)

    def _decide_to_drain(self) -> None:
        if self._draining is not None:
            return
        exhausted = self._budget.exhausted(self._spent())
        if self._interrupts:
            self._draining = "interrupted"
            self._observer.note("finishing what is running; press Ctrl-C again to stop at once")
        elif exhausted is not None:
            self._draining, self._budget_is_spent = exhausted, True

    def _decide_to_close(self) -> None:
        """What follows the last candidate is fresh seeds of the best and a lot among the pruned."""
        if self._closing is not None or self._draining is not None:
            return
        if self._fruitless >= _FRUITLESS_LIMIT:
            self._close(f"{self._fruitless} proposals in a row gave no new sound candidate")
        elif not self._is_searching():
            self._close("all wanted candidates are measured")

    def _is_searching(self) -> bool:
        expects_proposals = self._desk.in_flight > 0 or self._wants_proposals()
        return expects_proposals or self._dispatcher.is_searching()

    def _close(self, reason: str) -> None:
        self._closing = reason
        self._dispatcher.close()
        self._observer.note("measuring the best once more, with fresh seeds")

    def _collect(self) -> None:
        ended_jobs = self._dispatcher.collect(_WAIT_S)
        for ended in ended_jobs:
            self._observer.note(ended.note)
            self._after_end(ended)
        if any(ended.is_trial for ended in ended_jobs):
            self._quarantine()

    def _quarantine(self) -> None:
        for note in quarantine_suspects(self._store, self._board, self._config):
            self._observer.note(note)

    def _after_end(self, ended: Ended) -> None:
        self._infra_failures = self._infra_failures + 1 if ended.infra_error is not None else 0
        if self._infra_failures >= _INFRA_LIMIT:
            raise LinearchError(
                f"{_INFRA_LIMIT} jobs in a row failed for no fault of a candidate, the last with: "
                f"{ended.infra_error}. Run `linearch doctor`, then resume the run."
            )
        if ended.candidate.is_baseline:
            return
        if ended.check is not None:
            self._fruitless += 1
            self._repair(ended.candidate.id, ended.check)
        elif not ended.is_trial and ended.candidate.state == "sound":
            self._fruitless = 0

    def _spent(self) -> Spent:
        stored = self._store.queries.budget_spent(self._run_id)
        return Spent(elapsed_s=self.elapsed_s, gpu_s=stored.gpu_seconds, usd=stored.usd or 0.0)

    def _refresh(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if now - self._heartbeat_s >= _HEARTBEAT_S:
            self._heartbeat_s = now
            if not self._store.heartbeat(self._run_id, self._epoch, self.elapsed_s):
                raise LinearchError(
                    f"Another process has taken over run {self._run_id}; this one stops."
                )
        if force or now - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = now
            spent = self._spent()
            rows, floor = refresh_statistics(self._store, self._run_id, self._config)
            self._observer.update(
                snapshot(
                    rows,
                    self._store.queries.funnel(self._run_id),
                    self._run_id,
                    self._config,
                    phase=self._phase(),
                    spent=spent,
                    remaining_s=self._budget.remaining_s(spent),
                    running=self._dispatcher.running,
                    noise_bpb=floor,
                )
            )

    def _phase(self) -> str:
        if self._draining is not None:
            return f"draining ({self._draining})"
        if self._closing is not None:
            return "measuring the best again"
        return "searching" if self._board.proposals else "baselines"

    def _ending(self) -> Ending:
        if self._interrupts:
            return Ending(state="interrupted", reason="interrupted", elapsed_s=self.elapsed_s)
        reason = self._draining or self._closing or "all wanted candidates are measured"
        return Ending(
            state=self._state,
            reason=reason,
            elapsed_s=self.elapsed_s,
            budget_is_spent=self._budget_is_spent,
        )

    def _count_past_proposals(self) -> int:
        funnel = self._store.queries.funnel(self._run_id)
        return funnel.proposed
