"""Between the board and the workers: starts the most urgent job, books every end in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import RunConfig
from ..db import Store
from ..evaluator import Finished, JudgeJob, Pool, TrialJob, TrialSpec
from ..evaluator.results import Judgement, TrialResult
from .board import SIZES, Board, Candidate, Trial
from .checkpoints import drop_checkpoints, spent_by
from .rates import edge_rate
from .schedule import JUDGEMENT_PRIORITY, Wanted, parent_checkpoint, wanted_trials
from .timetable import Timetable

_FOUND_OUT = ("noncausal", "unsound")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A job that is booked. `check` is set where the candidate was rejected by it just now;
    `infra_error` where the machinery failed and nothing was learnt."""

    candidate: Candidate
    note: str
    is_trial: bool
    check: str | None = None
    infra_error: str | None = None


class Dispatcher:
    """Keeps the pool's workers busy for one run. The driver's thread alone calls it."""

    def __init__(
        self,
        *,
        config: RunConfig,
        store: Store,
        run_id: str,
        board: Board,
        pool: Pool,
        gpu_share: float | None,
    ) -> None:
        self._config, self._store, self._run_id = config, store, run_id
        self._board, self._pool = board, pool
        self._gpu_share = gpu_share
        self._running: dict[str, str] = {}  # key of a job -> what it is, for people
        self._is_closing = False
        self._timetable = Timetable(board, config, pool.slots)

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(self._running.values())

    def close(self) -> None:
        """From here on no candidate is judged, and none but the best of a rung begins or climbs by
        its score."""
        self._is_closing = True

    def backlog(self) -> int:
        """Jobs that could start now; the recall probe, which fills idle time, is not counted."""
        return len(self._unjudged()) + sum(plan.key.task == "corpus" for plan in self._wanted())

    def has_work(self) -> bool:
        """Whether any job could start now, the recall probe included."""
        return bool(self._unjudged() or self._wanted())

    def is_searching(self) -> bool:
        """Whether a candidate or baseline is being judged or trained, or could be."""
        judging = any(candidate.state == "judging" for candidate in self._board)
        training = any(trial.key.task == "corpus" for _, trial in self._board.trials("running"))
        return judging or training or self.backlog() > 0

    def is_time_to_close(self, remaining_s: float | None) -> bool:
        """Whether a worker idles because whatever it could start would leave too little time for
        the best of each rung, the fresh seeds and the lot. To be asked when nothing more could be
        started."""
        if self._is_closing or remaining_s is None or self._pool.idle == 0:
            return False
        follows = self._timetable.follows()
        if not follows:
            return False
        return self.backlog() > 0 or self._timetable.closing_s(follows) >= remaining_s

    def start_next(self, remaining_s: float | None) -> bool:
        """Starts the most urgent job that should end within `remaining_s`, and what follows the
        close with it; False if none does."""
        if self._pool.idle == 0:
            return False
        must_plan = remaining_s is not None and not self._is_closing
        follows = self._timetable.follows() if must_plan else []
        unjudged = self._next_unjudged(remaining_s, follows)
        trial = self._next_trial(remaining_s, follows)
        if unjudged is not None and (trial is None or _judge_first(unjudged, trial)):
            self._start_judgement(unjudged)
        elif trial is not None:
            return self._start_trial(trial)
        return unjudged is not None or trial is not None

    def collect(self, timeout_s: float) -> list[Ended]:
        """Books the jobs that ended within `timeout_s`."""
        if not self._running:
            return []
        return [self._book(finished) for finished in self._pool.wait(timeout_s)]

    def _next_unjudged(
        self, remaining_s: float | None, follows: Sequence[Wanted]
    ) -> Candidate | None:
        first = min(self._unjudged(), key=lambda candidate: not candidate.is_baseline, default=None)
        fits = self._fits(self._timetable.entry_s(), remaining_s, follows)
        return first if fits else None

    def _unjudged(self) -> list[Candidate]:
        return [
            candidate
            for candidate in self._board
            if candidate.state == "proposed" and (candidate.is_baseline or not self._is_closing)
        ]

    def _wanted(self) -> list[Wanted]:
        return wanted_trials(self._board, self._config, is_closing=self._is_closing)

    def _next_trial(self, remaining_s: float | None, follows: Sequence[Wanted]) -> Wanted | None:
        for wanted in self._wanted():
            if self._fits(self._timetable.trial_s(wanted), remaining_s, follows, wanted):
                return wanted
        return None

    def _fits(
        self,
        expected_s: float | None,
        remaining_s: float | None,
        follows: Sequence[Wanted],
        wanted: Wanted | None = None,
    ) -> bool:
        """Whether a job should end in time, and so should what follows the close after it."""
        if remaining_s is None or expected_s is None:
            return True
        if follows:
            return self._timetable.closing_s(follows, expected_s, job=wanted) <= remaining_s
        return expected_s <= remaining_s

    def _start_judgement(self, candidate: Candidate) -> None:
        candidate.state = "judging"
        self._running[candidate.id] = f"{candidate.name} gates"
        self._timetable.begin(candidate.id, self._timetable.entry_s())  # its first score is next
        self._pool.submit(
            JudgeJob(
                key=candidate.id,
                source=candidate.source,
                pattern=candidate.pattern,
                is_reference=candidate.is_reference,
            )
        )

    def _start_trial(self, wanted: Wanted) -> bool:
        candidate, key = self._board[wanted.architecture_id], wanted.key
        row = self._store.enqueue_trial(
            self._run_id,
            candidate.id,
            task=key.task,
            rung=key.rung,
            tokens=wanted.tokens,
            seed=key.seed,
            learning_rate=key.learning_rate,
            purpose=wanted.purpose,
        )
        trial = candidate.trials.setdefault(key, Trial(id=row.id, key=key, tokens=row.tokens))
        trial.epoch = self._store.start_trial(row.id, gpus=self._gpu_share)
        if trial.epoch is None:  # another driver took it, so this run is no longer ours
            return False
        trial.state = "running"
        self._running[trial.id] = f"{candidate.name} {_describe(trial)}"
        self._timetable.begin(trial.id, self._timetable.trial_s(wanted))
        spec = self._spec(candidate, trial)
        self._pool.submit(TrialJob(key=f"{candidate.id} {trial.id}", spec=spec))
        return True

    def _spec(self, candidate: Candidate, trial: Trial) -> TrialSpec:
        assert candidate.mlp_width is not None
        below = parent_checkpoint(candidate, trial.key) if trial.key.task == "corpus" else None
        digest = below.checkpoint_hash if below else None
        return TrialSpec(
            source=candidate.source,
            pattern=candidate.pattern,
            mlp_width=candidate.mlp_width,
            task=trial.key.task,
            rung=trial.key.rung,
            tokens=trial.tokens,
            seed=trial.key.seed,
            learning_rate=trial.key.learning_rate,
            checkpoint=self._store.blobs.get(digest) if digest else None,
            is_reference=candidate.is_reference,
            state_bytes=candidate.sizes.get("state_bytes"),
        )

    def _book(self, finished: Finished) -> Ended:
        if isinstance(finished.job, JudgeJob):
            candidate = self._board[finished.job.key]
            del self._running[candidate.id]
            self._timetable.end(candidate.id)
            judgement = finished.value
            assert judgement is None or isinstance(judgement, Judgement)
            return self._book_judgement(candidate, judgement, finished.infra_error)
        architecture_id, trial_id = finished.job.key.split(" ")
        candidate = self._board[architecture_id]
        del self._running[trial_id]
        self._timetable.end(trial_id)
        trial = next(trial for trial in candidate.trials.values() if trial.id == trial_id)
        result = finished.value
        assert result is None or isinstance(result, TrialResult)
        if result is None or result.status == "infra":
            reason = finished.infra_error or (result.reason if result else None) or "unknown"
            return self._book_infra(candidate, trial, reason)
        return self._book_trial(candidate, trial, result)

    def _book_judgement(
        self, candidate: Candidate, judgement: Judgement | None, infra_error: str | None
    ) -> Ended:
        error = infra_error or (judgement.infra_error if judgement else None)
        if judgement is None or error is not None:
            candidate.attempts += 1
            retry = candidate.attempts < self._config.workers.max_attempts
            candidate.state = "proposed" if retry else "unjudged"
            self._store.add_event(
                self._run_id, "infra", {"architecture_id": candidate.id, "reason": error}
            )
            note = f"{candidate.name}: the gates could not run: {error}"
            return Ended(candidate=candidate, note=note, is_trial=False, infra_error=error or "")
        self._store.record_judgement(candidate.id, judgement)
        self._timetable.observe_judgement(judgement.wall_s)
        candidate.mlp_width = judgement.mlp_width
        candidate.sizes = {name: getattr(judgement, name) for name in SIZES}
        failure = judgement.failure
        if failure is None:
            candidate.state = "sound"
            return Ended(candidate=candidate, note=f"{candidate.name} is sound", is_trial=False)
        candidate.state, candidate.reason = "rejected", f"{failure.gate}: {failure.reason}"
        note = f"rejected {candidate.name}: {candidate.reason}"
        return Ended(candidate=candidate, note=note, is_trial=False, check=failure.gate)

    def _book_infra(self, candidate: Candidate, trial: Trial, reason: str) -> Ended:
        assert trial.epoch is not None
        queued = self._store.requeue_trial(
            trial.id, trial.epoch, reason, max_attempts=self._config.workers.max_attempts
        )
        trial.state = "queued" if queued else "failed"
        note = f"{candidate.name} {_describe(trial)}: the machinery failed: {reason}"
        return Ended(candidate=candidate, note=note, is_trial=True, infra_error=reason)

    def _book_trial(self, candidate: Candidate, trial: Trial, result: TrialResult) -> Ended:
        assert trial.epoch is not None
        self._store.finish_trial(trial.id, trial.epoch, result)
        row = self._store.architecture(candidate.id)
        candidate.state, candidate.reason = row.state, row.reason
        trial.state = "done" if result.status == "done" else "failed"
        trial.metrics, trial.alarm = dict(result.metrics), result.alarm
        trial.window_nats, trial.wall_s = result.window_nats, result.wall_s
        stored = self._store.trial(trial.id)
        trial.checkpoint_hash, trial.finished_at = stored.checkpoint_hash, stored.finished_at
        drop_checkpoints(self._store, spent_by(candidate, trial))
        what = f"{candidate.name} {_describe(trial)}"
        if trial.state == "failed":
            check = result.status if result.status in _FOUND_OUT else None
            note = f"{what}: {result.status}: {result.reason}"
            return Ended(candidate=candidate, note=note, is_trial=True, check=check)
        self._timetable.observe_trial(trial)
        note = f"{what}: {_score(result)}{self._edge(candidate, trial)}"
        return Ended(candidate=candidate, note=note, is_trial=True)

    def _edge(self, candidate: Candidate, trial: Trial) -> str:
        """What the note of the trial says that completes a grid with its best rate at the edge."""
        is_of_grid = (trial.key.task, trial.key.rung) == ("corpus", 0)
        if not is_of_grid or trial.key.seed != self._config.seed:
            return ""
        rate = edge_rate(candidate, self._config)
        return "" if rate is None else f"; its best rate {rate:g} is at the edge of the grid"


def _judge_first(candidate: Candidate, wanted: Wanted) -> bool:
    return candidate.is_baseline or wanted.priority > JUDGEMENT_PRIORITY


def _describe(trial: Trial) -> str:
    if trial.key.task != "corpus":
        return trial.key.task
    return f"rung {trial.key.rung} seed {trial.key.seed} lr {trial.key.learning_rate:g}"


def _score(result: TrialResult) -> str:
    known = {name: value for name, value in result.metrics.items() if value is not None}
    if "val_bpb" in known:
        return f"{known['val_bpb']:.3f} bits per byte"
    recalled = [value for name, value in known.items() if name.startswith("recall_")]
    return f"{recalled[0]:.1%} recalled" if recalled else "no score"
