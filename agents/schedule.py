"""Which trials a run wants, given what is known: a pure function of the board.

Because it says what should exist rather than what happened, a resumed run asks the same question
and gets the same answer. Baselines come first and climb every rung; candidates climb by
asynchronous successive halving (arXiv 1810.05934); recall is probed last, best candidates first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..config import RunConfig
from .board import Board, Candidate, Trial, TrialKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A trial that should exist; lower `priority` runs first."""

    architecture_id: str
    key: TrialKey
    tokens: int
    priority: tuple[float, ...]


def wanted_trials(board: Board, config: RunConfig) -> list[Wanted]:
    """Every trial that can start now and has not, most urgent first."""
    wanted = [
        plan
        for candidate in board
        if candidate.is_believed and candidate.mlp_width is not None
        for plan in _for_candidate(candidate, board, config)
        if (trial := candidate.trials.get(plan.key)) is None or trial.state == "queued"
    ]
    return sorted(wanted, key=lambda plan: plan.priority)


def promoted(board: Board, rung: int, fraction: float) -> set[str]:
    """Ids of the proposed candidates that may climb from `rung`: the best `fraction` there."""
    scored = [
        (best.val_bpb, candidate.id)
        for candidate in board.proposals
        if candidate.is_believed
        and (best := candidate.best(rung, board.seed)) is not None
        and best.val_bpb is not None
    ]
    return {name for _, name in sorted(scored)[: math.ceil(fraction * len(scored))]}


def parent_checkpoint(candidate: Candidate, key: TrialKey) -> Trial | None:
    """The trial whose checkpoint a later rung continues from: one below, same seed and rate."""
    below = TrialKey(
        task=key.task, rung=key.rung - 1, seed=key.seed, learning_rate=key.learning_rate
    )
    return candidate.trials.get(below) if key.rung > 0 else None


def _for_candidate(candidate: Candidate, board: Board, config: RunConfig) -> Iterator[Wanted]:
    yield from _climb(candidate, board, config, seed=config.seed)
    if candidate.name == config.ladder.noise_baseline and candidate.is_baseline:
        for extra in range(1, config.ladder.noise_seeds):
            yield from _climb(candidate, board, config, seed=config.seed + extra)
    yield from _recall(candidate, board, config)


def _climb(candidate: Candidate, board: Board, config: RunConfig, *, seed: int) -> Iterator[Wanted]:
    """The corpus trials of one seed: all rates at rung 0, then the best rate from rung to rung."""
    class_rank = 0.0 if candidate.is_baseline else 1.0
    is_repeat = float(seed != config.seed)
    for rung, tokens in enumerate(config.ladder.rung_tokens):
        if rung == 0:
            rates = _first_rates(candidate, config, is_repeat=bool(is_repeat))
        elif _may_climb(candidate, board, config, rung, seed):
            below = candidate.best(rung - 1, seed)
            rates = (below.key.learning_rate,) if below else ()
        else:
            return
        for rate in rates:
            key = TrialKey(task="corpus", rung=rung, seed=seed, learning_rate=rate)
            yield Wanted(
                architecture_id=candidate.id,
                key=key,
                tokens=tokens,
                priority=(class_rank, is_repeat, -rung),
            )


def _first_rates(candidate: Candidate, config: RunConfig, *, is_repeat: bool) -> tuple[float, ...]:
    if not is_repeat:
        return config.training.learning_rates
    best = candidate.best(0, config.seed)  # seeds are repeated at the rate that was best
    settled = all(
        trial.state in {"done", "failed"}
        for key, trial in candidate.trials.items()
        if key.task == "corpus" and key.rung == 0 and key.seed == config.seed
    )
    return (best.key.learning_rate,) if best and settled else ()


def _may_climb(candidate: Candidate, board: Board, config: RunConfig, rung: int, seed: int) -> bool:
    rates = config.training.learning_rates if seed == config.seed else ()
    below = [
        candidate.trials.get(TrialKey(task="corpus", rung=0, seed=seed, learning_rate=rate))
        for rate in rates
    ]
    if rung == 1 and any(trial is None or trial.state in {"queued", "running"} for trial in below):
        return False  # the grid is not complete, so its best rate is not known
    if candidate.best(rung - 1, seed) is None:
        return False
    return candidate.is_baseline or candidate.id in promoted(
        board, rung - 1, config.ladder.promote_fraction
    )


def _recall(candidate: Candidate, board: Board, config: RunConfig) -> Iterator[Wanted]:
    last = len(config.ladder.rung_tokens) - 1
    best = candidate.best(last, config.seed)
    if not config.recall.enabled or best is None or best.val_bpb is None:
        return
    rate = best.key.learning_rate
    for task in config.recall.tasks:
        yield Wanted(
            architecture_id=candidate.id,
            key=TrialKey(task=task, rung=last, seed=config.seed, learning_rate=rate),
            tokens=config.recall.train_tokens,
            priority=(2.0, best.val_bpb),
        )
