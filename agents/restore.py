"""The board of a run that ran before, read back from the store: how a search resumes."""

from __future__ import annotations

from collections import defaultdict

from ..db import ArchitectureRow, Score, Store, TrialRow
from .board import SIZES, Board, Candidate, Trial, TrialKey


def restore_board(store: Store, run_id: str, board: Board) -> None:
    """Fills an empty board with everything the store knows of the run."""
    scores = {score.trial_id: score for score in store.queries.scores(run_id)}
    windows = store.queries.window_nats(run_id)
    trials: dict[str, list[TrialRow]] = defaultdict(list)
    for trial in store.trials(run_id):
        trials[trial.architecture_id].append(trial)
    parents: dict[str, list[str]] = defaultdict(list)
    for edge in store.queries.lineage(run_id).edges:
        parents[edge.child_id].append(edge.parent_id)
    for row in store.architectures(run_id):
        candidate = candidate_of(row, tuple(parents[row.id]))
        for found in trials[row.id]:
            known = _trial(found, scores.get(found.id), windows.get(found.id))
            candidate.trials[known.key] = known
        board.add(candidate)


def candidate_of(row: ArchitectureRow, parent_ids: tuple[str, ...]) -> Candidate:
    """What the store knows of an architecture, but for its trials."""
    return Candidate(
        id=row.id,
        name=row.name,
        motivation=row.motivation,
        source=row.source,
        origin=row.origin,
        pattern=row.pattern,
        is_reference=row.is_reference,
        genome=row.genome,
        parent_ids=parent_ids,
        state=row.state,
        reason=f"{row.rejected_by}: {row.reason}" if row.rejected_by else row.reason,
        mlp_width=row.mlp_width,
        is_released=row.released_at is not None,
        sizes={name: getattr(row, name) for name in SIZES},
    )


def _trial(row: TrialRow, score: Score | None, window_nats: tuple[float, ...] | None) -> Trial:
    return Trial(
        id=row.id,
        key=TrialKey(task=row.task, rung=row.rung, seed=row.seed, learning_rate=row.learning_rate),
        tokens=row.tokens,
        state=row.state,
        attempts=row.attempts,
        epoch=row.epoch,
        metrics=score.metrics() if score else {},
        window_nats=window_nats,
        checkpoint_hash=row.checkpoint_hash,
        alarm=row.alarm,
        wall_s=row.wall_s,
        finished_at=row.finished_at,
    )
