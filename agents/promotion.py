"""Who climbs from a rung: the best by the configured pruner, and a random share of the others.

The lot is drawn from the seed, the rung and the source, never from a score. So those promoted by it
stand for everything pruned, and how well a rung ranks is measured without selection bias.
"""

from __future__ import annotations

import hashlib
import math

from ..config import LadderConfig
from .board import Board, Candidate


def promoted(board: Board, rung: int, ladder: LadderConfig) -> set[str]:
    """Ids of the proposed candidates that climb from `rung` by their score there.

    `asha` is asynchronous successive halving as published (arXiv 1810.05934): the best
    `promote_fraction` of all that were measured so far, so one passed over may climb later. The
    others are Optuna's pruners, which decide once, when a score comes in.
    """
    if ladder.pruner == "asha":
        return best_fraction(board, rung, ladder.promote_fraction)
    # Here, since Optuna takes a second to import.
    from .studies.pruners import kept_by_pruner
    from .studies.windows import kept_by_windows

    kept_by = kept_by_windows if ladder.pruner == "wilcoxon" else kept_by_pruner
    return kept_by(board, rung, ladder)


def best_fraction(board: Board, rung: int, fraction: float) -> set[str]:
    """The best `fraction` of the finishers of `rung`, rounded up."""
    scored = sorted((value, who.id) for who, value in finishers(board, rung))
    return {name for _, name in scored[: math.ceil(fraction * len(scored))]}


def drawn(board: Board, rung: int, ladder: LadderConfig, *, is_closing: bool) -> set[str]:
    """Ids of the proposed candidates that climb from `rung` by lot, if not by their score.

    Each finisher is drawn with the chance `random_promote_fraction`. When the search closes, at
    least one of those that were not promoted is: without one their order stays unknown.
    """
    fraction = ladder.random_promote_fraction
    if not fraction:
        return set()
    lots = {who.id: lot(who, rung, board.seed) for who, _ in finishers(board, rung)}
    tickets = {name for name, number in lots.items() if number < fraction}
    if is_closing:
        pruned = lots.keys() - promoted(board, rung, ladder)
        if pruned and not pruned & tickets:
            tickets.add(min(pruned, key=lots.__getitem__))
    return tickets


def leader(board: Board, rung: int, ladder: LadderConfig) -> str | None:
    """Id of the best of those that climb from `rung` by their score, whether it has climbed yet or
    not; None before there is one."""
    climbing = promoted(board, rung, ladder)
    scored = [(value, who.id) for who, value in finishers(board, rung) if who.id in climbing]
    return min(scored)[1] if scored else None


def finishers(board: Board, rung: int) -> list[tuple[Candidate, float]]:
    """The proposed candidates in good standing with their first seed's score on `rung`."""
    return [
        (candidate, best.val_bpb)
        for candidate in board.proposals
        if candidate.is_believed
        and (best := candidate.best(rung, board.seed)) is not None
        and best.val_bpb is not None
    ]


def lot(candidate: Candidate, rung: int, seed: int) -> float:
    """A number in [0, 1) that is the same each time this source is drawn for with this seed."""
    digest = hashlib.sha256(f"{seed} {rung} {candidate.source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
