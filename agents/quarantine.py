"""Takes candidates whose score is too good out of the race, and says which and why."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import RunConfig
from ..db import Store
from ..evaluator.alarm import effort_alarm, rival_alarm, time_alarm
from .board import Board, Candidate, Trial
from .schedule import wanted_trials


def quarantine_suspects(store: Store, board: Board, config: RunConfig) -> list[str]:
    """Puts every suspicious candidate into quarantine, in the store and on the board; notes."""
    notes = []
    for candidate, reason in list(_suspects(board, config)):
        row = store.quarantine(candidate.id, reason)
        candidate.state, candidate.reason = row.state, row.reason
        notes.append(f"{candidate.name} is in quarantine: {reason}")
    return notes


def _suspects(board: Board, config: RunConfig) -> Iterator[tuple[Candidate, str]]:
    """Judged where every baseline has its score: before that, no one knows what is too good."""
    rungs = [rung for rung in range(board.n_rungs) if not _awaits_baselines(board, config, rung)]
    for candidate in board.proposals:
        if candidate.is_believed and not candidate.is_released:
            found = [_alarm(candidate, board, config, rung) for rung in rungs]
            reason = next((reason for reason in found if reason is not None), None)
            if reason is not None:
                yield candidate, reason


def _alarm(candidate: Candidate, board: Board, config: RunConfig, rung: int) -> str | None:
    best = candidate.best(rung, board.seed)
    if best is None or best.val_bpb is None:
        return None
    rivals = [
        (trial.val_bpb, baseline.name, trial.alarm)
        for baseline in board.baselines
        if (trial := baseline.best(rung, board.seed)) is not None and trial.val_bpb is not None
    ]
    # Where a known mixer sets the text's alarm off too, the text is easy and the alarm is nothing.
    if best.alarm is not None and not any(alarm for _, _, alarm in rivals):
        return best.alarm
    if not rivals:
        return None
    baseline_bpb, name, _ = min(rivals)
    share = config.gates.alarm_share
    return (
        rival_alarm(best.val_bpb, rung, name, baseline_bpb, share)
        or _time_alarm(best, board, rung, baseline_bpb)
        or _effort_alarm(best, board, rung, baseline_bpb)
    )


def _time_alarm(best: Trial, board: Board, rung: int, baseline_bpb: float) -> str | None:
    """Each speed is that of the quoted trial; without one there is nothing to compare."""
    own, speeds = _own_and_baselines("tokens_per_s", best, board, rung)
    took_s = best.metrics.get("train_wall_s")
    if best.val_bpb is None or not own or not took_s or not speeds:
        return None
    return time_alarm(best.val_bpb, own, took_s, baseline_bpb, min(speeds))


def _effort_alarm(best: Trial, board: Board, rung: int, baseline_bpb: float) -> str | None:
    """Only where processor time was measured, which is on a CPU."""
    own, ratios = _own_and_baselines("train_cost_ratio", best, board, rung)
    took_s = best.metrics.get("train_cpu_s")
    if best.val_bpb is None or not own or not took_s or not ratios:
        return None
    return effort_alarm(best.val_bpb, own, took_s, baseline_bpb, max(ratios))


def _own_and_baselines(
    metric: str, best: Trial, board: Board, rung: int
) -> tuple[float | None, list[float]]:
    trials = [baseline.best(rung, board.seed) for baseline in board.baselines]
    found = [value for trial in trials if trial and (value := trial.metrics.get(metric))]
    return best.metrics.get(metric), found


def _awaits_baselines(board: Board, config: RunConfig, rung: int) -> bool:
    """Whether a baseline's first training up to `rung` is still to come."""
    unjudged = any(baseline.state in {"proposed", "judging"} for baseline in board.baselines)
    wanted = ((board[plan.architecture_id], plan.key) for plan in wanted_trials(board, config))
    running = ((candidate, trial.key) for candidate, trial in board.trials("running"))
    return unjudged or any(
        candidate.is_baseline
        and key.task == "corpus"
        and key.seed == board.seed
        and key.rung <= rung
        for candidate, key in (*wanted, *running)
    )
