"""Which trials a run wants, given what is known: a pure function of the board.

Because it says what should exist rather than what happened, a resumed run asks the same question
and gets the same answer. Baselines come first and climb every rung; candidates climb as
`promotion.py` says, the best of each rung before anything else of a candidate. When the search
closes, no other candidate begins or climbs by its score any more: the elite gets fresh seeds
(`elite.py`). Tasks are probed last, best candidates first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ..config import RunConfig
from ..db import TrialPurpose
from .board import Board, Candidate, Trial, TrialKey
from .elite import open_fresh_seeds
from .promotion import drawn, leader, promoted
from .rates import is_grid_complete, rates_of

_Climbers = dict[tuple[str, int], TrialPurpose]  # by candidate and the rung it may climb to

_BASELINE, _LEADER, _CANDIDATE, _CLOSING, _PROBE = map(float, range(5))  # what runs first
JUDGEMENT_PRIORITY = (_CANDIDATE, -1.0)  # a candidate's gates: before its like's trainings


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A trial that should exist; lower `priority` runs first."""

    architecture_id: str
    key: TrialKey
    tokens: int
    purpose: TrialPurpose
    priority: tuple[float, ...]

    @property
    def leads(self) -> bool:
        """Whether it completes the best candidate's grid of rates, or takes it a rung higher."""
        return self.priority[0] == _LEADER


def wanted_trials(board: Board, config: RunConfig, *, is_closing: bool = False) -> list[Wanted]:
    """Every trial that can start now and has not, most urgent first."""
    climbers = _climbers(board, config, is_closing=is_closing)
    leaders = _leaders(board, config)
    plans = [
        plan
        for candidate in board
        if candidate.is_believed and candidate.mlp_width is not None
        for plan in _for_candidate(candidate, config, climbers, leaders)
    ]
    if is_closing:
        plans = [plan for plan in plans if _outlives_closing(plan)]
        plans += _fresh(board, config)
    wanted = [plan for plan in plans if _is_open(board[plan.architecture_id], plan.key)]
    return sorted(wanted, key=lambda plan: plan.priority)


def parent_checkpoint(candidate: Candidate, key: TrialKey) -> Trial | None:
    """The trial whose checkpoint a later rung continues from: one below, same seed and rate."""
    below = TrialKey(
        task=key.task, rung=key.rung - 1, seed=key.seed, learning_rate=key.learning_rate
    )
    return candidate.trials.get(below) if key.rung > 0 else None


def _climbers(board: Board, config: RunConfig, *, is_closing: bool) -> _Climbers:
    climbers: _Climbers = {}
    for rung in range(len(config.ladder.rung_tokens) - 1):
        lots = drawn(board, rung, config.ladder, is_closing=is_closing)
        climbers |= {(name, rung + 1): "random" for name in lots}
        by_score = promoted(board, rung, config.ladder)
        climbers |= {(name, rung + 1): "promoted" for name in by_score}
    return climbers


def _leaders(board: Board, config: RunConfig) -> set[tuple[str, int]]:
    """The best candidate of each rung that one climbs from, with that rung and with the next."""
    rungs = range(len(config.ladder.rung_tokens) - 1)
    best = [(leader(board, rung, config.ladder), rung) for rung in rungs]
    return {(name, rung + up) for name, rung in best if name is not None for up in (0, 1)}


def _outlives_closing(plan: Wanted) -> bool:
    return plan.leads or plan.purpose not in {"entry", "promoted"}


def _is_open(candidate: Candidate, key: TrialKey) -> bool:
    trial = candidate.trials.get(key)
    return trial is None or trial.state == "queued"


def _for_candidate(
    candidate: Candidate, config: RunConfig, climbers: _Climbers, leaders: set[tuple[str, int]]
) -> Iterator[Wanted]:
    yield from _first_climb(candidate, config, climbers, leaders)
    if candidate.is_baseline:
        is_noise = candidate.name == config.ladder.noise_baseline
        n_seeds = config.ladder.noise_seeds if is_noise else config.ladder.baseline_seeds
        for extra in range(1, n_seeds):
            plans = _repeat(candidate, config, seed=config.seed + extra, purpose="noise")
            yield from plans
    yield from _probes(candidate, config)


def _first_climb(
    candidate: Candidate, config: RunConfig, climbers: _Climbers, leaders: set[tuple[str, int]]
) -> Iterator[Wanted]:
    """The first seed's trials: all rates at rung 0, then the best rate from rung to rung."""
    for rung, tokens in enumerate(config.ladder.rung_tokens):
        purpose: TrialPurpose | None = "baseline" if candidate.is_baseline else "entry"
        rates = rates_of(candidate, config)
        if rung > 0:
            below = candidate.best(rung - 1, config.seed)
            if below is None or (rung == 1 and not is_grid_complete(candidate, config)):
                return
            rates = (below.key.learning_rate,)
            if not candidate.is_baseline:
                purpose = climbers.get((candidate.id, rung))
        if purpose is None:
            return
        rank = _LEADER if (candidate.id, rung) in leaders else _CANDIDATE
        priority = (_BASELINE if candidate.is_baseline else rank, 0.0, -rung)
        for rate in rates:
            yield _plan(candidate, rung, tokens, config.seed, rate, purpose, priority)


def _repeat(
    candidate: Candidate,
    config: RunConfig,
    *,
    seed: int,
    purpose: TrialPurpose,
    priority: tuple[float, ...] | None = None,
) -> Iterator[Wanted]:
    """The trials of another seed, at the rate that was best for the first one. `priority` is for
    the first of them: a seed that has begun is ended before others, for below the last rung nothing
    is compared."""
    first = candidate.best(0, config.seed)
    if first is None or not is_grid_complete(candidate, config):
        return
    for rung, tokens in enumerate(config.ladder.rung_tokens):
        if rung > 0 and candidate.best(rung - 1, seed) is None:
            return
        rate = first.key.learning_rate
        urgency = priority if priority and rung == 0 else (_BASELINE, 1.0, -rung)
        yield _plan(candidate, rung, tokens, seed, rate, purpose, urgency)


def _fresh(board: Board, config: RunConfig) -> Iterator[Wanted]:
    for place, (candidate, seed) in enumerate(open_fresh_seeds(board, config)):
        priority = (_CLOSING, float(place))
        yield from _repeat(candidate, config, seed=seed, purpose="fresh", priority=priority)


def _probes(candidate: Candidate, config: RunConfig) -> Iterator[Wanted]:
    """Each task, of the first seed for all candidates before the second for any."""
    last, recall = len(config.ladder.rung_tokens) - 1, config.recall
    best = candidate.best(last, config.seed)
    if not recall.enabled or best is None or best.val_bpb is None:
        return
    rates = recall.learning_rates or (best.key.learning_rate,)
    for extra, task, rate in product(range(recall.seeds), recall.tasks, rates):
        yield Wanted(
            architecture_id=candidate.id,
            key=TrialKey(task=task, rung=last, seed=config.seed + extra, learning_rate=rate),
            tokens=recall.train_tokens,
            purpose="probe",
            priority=(_PROBE, float(extra), best.val_bpb),
        )


def _plan(
    candidate: Candidate,
    rung: int,
    tokens: int,
    seed: int,
    rate: float,
    purpose: TrialPurpose,
    priority: tuple[float, ...],
) -> Wanted:
    return Wanted(
        architecture_id=candidate.id,
        key=TrialKey(task="corpus", rung=rung, seed=seed, learning_rate=rate),
        tokens=tokens,
        purpose=purpose,
        priority=priority,
    )
