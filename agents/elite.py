"""What is measured once more before a search ends: the best candidates and the best baseline.

The best of many noisy scores is partly the luckiest. Fresh seeds were not what it was chosen by, so
their mean is free of that luck; the seeds are the noise baseline's, hence on the same batches.
"""

from __future__ import annotations

from ..config import RunConfig
from .board import Board, Candidate


def elite(board: Board, config: RunConfig) -> list[Candidate]:
    """The best `ladder.elite` candidates by their first seed on the last rung, best first."""
    return _best_first(board.proposals, board)[: config.ladder.elite]


def best_baseline(board: Board) -> Candidate | None:
    """The baseline to beat: the lowest by its first seed on the last rung; references do not
    compete."""
    rivals = [baseline for baseline in board.baselines if not baseline.is_reference]
    return next(iter(_best_first(rivals, board)), None)


def fresh_seeds(board: Board, config: RunConfig) -> list[tuple[Candidate, int]]:
    """Who is trained again from which seed, most telling first: seed by seed, so that whatever the
    time allows is spread over all of them."""
    chosen = elite(board, config)
    rival = best_baseline(board)
    if not chosen:
        return []
    measured_again = [*chosen[:1], *([rival] if rival else []), *chosen[1:]]
    first = config.seed + 1
    seeds = range(first, first + config.ladder.elite_seeds)
    return [(candidate, seed) for seed in seeds for candidate in measured_again]


def open_fresh_seeds(board: Board, config: RunConfig) -> list[tuple[Candidate, int]]:
    """Those of `fresh_seeds` that have neither a score on the last rung nor failed before it."""
    last = len(config.ladder.rung_tokens) - 1
    return [
        (candidate, seed)
        for candidate, seed in fresh_seeds(board, config)
        if candidate.best(last, seed) is None and not _has_failed(candidate, seed)
    ]


def _best_first(candidates: list[Candidate], board: Board) -> list[Candidate]:
    scored = [
        (best.val_bpb, candidate.id, candidate)
        for candidate in candidates
        if candidate.is_believed
        and (best := candidate.best(board.n_rungs - 1, board.seed)) is not None
        and best.val_bpb is not None
    ]
    return [candidate for _, _, candidate in sorted(scored, key=lambda found: found[:2])]


def _has_failed(candidate: Candidate, seed: int) -> bool:
    return any(
        key.task == "corpus" and key.seed == seed and trial.state == "failed"
        for key, trial in candidate.trials.items()
    )
