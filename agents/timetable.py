"""When a search has to close: how long what follows the close takes, beside what runs now.

A job is foreseen from those of its kind that ended last; a fresh seed also from its architecture's
first climb, whichever is longer. What is decided by it, `dispatch.py` says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..config import RunConfig
from ..evaluator.recipe import trained_tokens
from .board import Board, Candidate, Trial
from .budget import Forecast, makespan_s
from .schedule import Wanted, wanted_trials

_GATES = "gates"
_CORPUS = "corpus"
_MARGIN = 1.1  # a close that is late costs a fresh seed


class Timetable:
    """What runs on `slots` workers until when, and what is still to come."""

    def __init__(self, board: Board, config: RunConfig, slots: int) -> None:
        self._board, self._config, self._slots = board, config, slots
        self._rung_tokens = trained_tokens(config.training, config.ladder.rung_tokens)
        self._forecast = Forecast()
        self._ends_s: dict[str, float] = {}  # by a running job's key, on the monotonic clock
        for _, trial in board.trials("done"):  # of the sessions before this one
            self.observe_trial(trial)

    def begin(self, key: str, expected_s: float | None) -> None:
        self._ends_s[key] = time.monotonic() + (expected_s or 0.0)

    def end(self, key: str) -> None:
        del self._ends_s[key]

    def observe_trial(self, trial: Trial) -> None:
        tokens = self._new_tokens(trial.key.task, trial.key.rung, trial.tokens)
        self._forecast.observe((trial.key.task, trial.key.rung), trial.wall_s, tokens=tokens)

    def observe_judgement(self, wall_s: float | None) -> None:
        self._forecast.observe(_GATES, wall_s)

    def entry_s(self) -> float | None:
        """Seconds from a candidate's gates to its first score."""
        first_s = self._corpus_s(0)
        return None if first_s is None else first_s + (self._forecast.expected_s(_GATES) or 0.0)

    def trial_s(self, wanted: Wanted) -> float | None:
        """Seconds of a trial; of a fresh seed's up to the last rung, since nothing is compared
        below it."""
        if wanted.purpose == "fresh":
            return self._climb_s(self._board[wanted.architecture_id], wanted.key.rung)
        key = wanted.key
        tokens = self._new_tokens(key.task, key.rung, wanted.tokens)
        return self._forecast.expected_s((key.task, key.rung), tokens=tokens)

    def follows(self) -> list[Wanted]:
        """What would be trained on the corpus if the search closed now; nothing where it is but a
        lot, which is drawn to be compared with those that climbed by their score."""
        plans = wanted_trials(self._board, self._config, is_closing=True)
        if not any(plan.purpose == "fresh" or plan.leads for plan in plans):
            return []
        return [plan for plan in plans if plan.key.task == _CORPUS]

    def closing_s(
        self, follows: Sequence[Wanted], job_s: float = 0.0, *, job: Wanted | None = None
    ) -> float:
        """Seconds until `follows` has ended, beginning after one more job of `job_s`."""
        last_s = [self.trial_s(plan) or 0.0 for plan in follows if not _is_same(plan, job)]
        return makespan_s(self._busy_s(), [job_s, *(_MARGIN * each_s for each_s in last_s)])

    def _busy_s(self) -> list[float]:
        now_s = time.monotonic()
        busy_s = [max(0.0, end_s - now_s) for end_s in self._ends_s.values()]
        return busy_s + [0.0] * (self._slots - len(busy_s))

    def _climb_s(self, candidate: Candidate, lowest: int) -> float | None:
        each_s = [self._rung_s(candidate, rung) for rung in range(lowest, len(self._rung_tokens))]
        known_s = [rung_s for rung_s in each_s if rung_s is not None]
        return sum(known_s) if len(known_s) == len(each_s) else None

    def _rung_s(self, candidate: Candidate, rung: int) -> float | None:
        first = candidate.best(rung, self._config.seed)
        known_s = [None if first is None else first.wall_s, self._corpus_s(rung)]
        return max((each_s for each_s in known_s if each_s is not None), default=None)

    def _corpus_s(self, rung: int) -> float | None:
        return self._forecast.expected_s((_CORPUS, rung), tokens=self._rung_tokens[rung])

    def _new_tokens(self, task: str, rung: int, tokens: int) -> int:
        """What is trained on from the checkpoint that the trial continues."""
        return self._rung_tokens[rung] if task == _CORPUS else tokens


def _is_same(plan: Wanted, job: Wanted | None) -> bool:
    return job is not None and (plan.architecture_id, plan.key) == (job.architecture_id, job.key)
