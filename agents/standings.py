"""Where a run stands: the statistics that the driver computes, and the snapshot it shows.

Statistics are rows of the store; tables and pages render them. Here: noise_floor by rung, and for
each scored architecture its score's interval, rank, tie, delta (to the noise baseline, with its
deviations) and pareto_rank. What a search found out in the end is in `findings.py`; docs/
statistics.md says what each number means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..config import RunConfig
from ..db import RECALL, ArchitectureRow, Funnel, LeaderboardRow, StatisticRow, Store
from ..evaluator.comparison import SeedNoise, pool_seed_noise, t_quantile
from ..evaluator.statistics import (
    NoiseFloor,
    noise_deviations,
    noise_floor,
    rank_with_ties,
    resolution_bpb,
)
from .budget import Spent
from .fitness import PARETO, chances_of, fitness_of, measure_yardstick
from .objectives import to_point
from .progress import Snapshot, Standing
from .selection import non_dominated_ranks

_SHOWN_BEST = 6


def refresh_statistics(
    store: Store, run_id: str, config: RunConfig
) -> tuple[list[LeaderboardRow], float | None]:
    """Recomputes and stores the statistics; returns the scored rows, best first and as they were
    before, and the noise at the highest rung that has one."""
    rows = [row for row in store.queries.leaderboard(run_id) if row.val_bpb is not None]
    baseline = _noise_baseline(rows, config)
    floors = _measure_noise(store, run_id, baseline) if baseline is not None else {}
    store.replace_statistics(run_id, "noise_floor", list(_floor_rows(floors)))
    by_rung: dict[int, list[LeaderboardRow]] = defaultdict(list)
    for row in rows:
        by_rung[row.rung or 0].append(row)
    ranks: list[StatisticRow] = []
    deltas: list[StatisticRow] = []
    scores: list[StatisticRow] = []
    for rung in sorted(by_rung, reverse=True):
        floor = floors.get(rung)
        ranks += _ranks(by_rung[rung], rung, floor, n_above=len(ranks))
        noise = pool_seed_noise(row.val_bpb_values for row in by_rung[rung])
        deltas += _deltas(by_rung[rung], rung, noise, config)
        scores += _intervals(by_rung[rung], rung, noise)
    store.replace_statistics(run_id, "rank", ranks)
    store.replace_statistics(run_id, "tie", ranks)  # rows of one rank are one tie
    store.replace_statistics(run_id, "delta", deltas)
    store.replace_statistics(run_id, "score", scores)
    store.replace_statistics(run_id, "pareto_rank", list(_pareto(by_rung, config)))
    if config.fitness != PARETO:
        store.replace_statistics(run_id, "fitness", list(_fitness(store, run_id, rows, config)))
    return rows, floors[max(floors)].sd if floors else None


def quoted_row(store: Store, architecture: ArchitectureRow) -> LeaderboardRow:
    """An architecture's own row of its run's leaderboard: the trial and number it is quoted by."""
    rows = store.queries.leaderboard(architecture.run_id)
    return next(row for row in rows if row.id == architecture.id)


def noise_floors(store: Store, run_id: str) -> dict[int, float]:
    """The stored seed noise in bits per byte by rung; empty before it was measured."""
    return {
        row.rung: row.value
        for row in store.queries.statistics(run_id, "noise_floor")
        if row.rung is not None and row.value is not None
    }


def snapshot(
    rows: Iterable[LeaderboardRow],
    funnel: Funnel,
    run_id: str,
    config: RunConfig,
    *,
    phase: str,
    spent: Spent,
    remaining_s: float | None,
    running: tuple[str, ...],
    noise_bpb: float | None,
) -> Snapshot:
    """What the observer is shown now; `rows` come best first."""
    best = [
        Standing(name=row.name, origin=row.origin, rung=row.rung or 0, val_bpb=row.val_bpb)
        for row in rows
        if row.val_bpb is not None
    ]
    return Snapshot(
        run_id=run_id,
        phase=phase,
        elapsed_s=spent.elapsed_s,
        remaining_s=remaining_s,
        candidates_done=funnel.measured + funnel.failed,
        candidates_wanted=config.budget.max_candidates,
        funnel=_funnel_line(funnel),
        running=running,
        best=tuple(best[:_SHOWN_BEST]),
        noise_bpb=noise_bpb,
        usd=spent.usd,
    )


def _measure_noise(store: Store, run_id: str, baseline: LeaderboardRow) -> dict[int, NoiseFloor]:
    """By rung, the spread of the noise baseline over seeds, at the one rate they were repeated at.

    Other learning rates of the grid differ for a reason and are no noise.
    """
    values: dict[tuple[int, float], list[float]] = defaultdict(list)
    for score in store.queries.scores(run_id):
        is_repeat = score.architecture_id == baseline.id and score.task == "corpus"
        if is_repeat and score.val_bpb is not None:
            values[score.rung, score.learning_rate].append(score.val_bpb)
    floors: dict[int, NoiseFloor] = {}
    for (rung, _), known in sorted(values.items(), key=lambda item: len(item[1])):
        floor = noise_floor(known)
        if floor is not None:
            floors[rung] = floor  # the rate with the most seeds comes last and stays
    return floors


def _noise_baseline(rows: Iterable[LeaderboardRow], config: RunConfig) -> LeaderboardRow | None:
    name = config.ladder.noise_baseline
    return next((row for row in rows if row.is_baseline and row.name == name), None)


def _floor_rows(floors: Mapping[int, NoiseFloor]) -> Iterable[StatisticRow]:
    for rung, floor in sorted(floors.items()):
        yield StatisticRow(
            rung=rung,
            metric="val_bpb",
            value=floor.sd,
            low=floor.low,
            high=floor.high,
            n=floor.n,
            detail={"mean": floor.mean, "resolution": resolution_bpb(floor.sd)},
        )


def _ranks(
    rows: list[LeaderboardRow], rung: int, floor: NoiseFloor | None, *, n_above: int
) -> list[StatisticRow]:
    """Ranks within one rung, below the `n_above` rows of higher rungs; ties by the noise."""
    resolution = resolution_bpb(floor.sd) if floor else None
    found = rank_with_ties([row.val_bpb for row in rows], resolution)
    return [
        StatisticRow(architecture_id=row.id, rung=rung, metric="val_bpb", value=n_above + rank)
        for row, rank in zip(rows, found, strict=True)
        if rank is not None
    ]


def _deltas(
    rows: list[LeaderboardRow], rung: int, noise: SeedNoise | None, config: RunConfig
) -> list[StatisticRow]:
    """Each row's distance to the noise baseline, with the interval that seed noise leaves to this
    one difference; verdicts, which are corrected for the number of tries, are findings."""
    baseline = _noise_baseline(rows, config)
    if baseline is None or baseline.val_bpb is None:
        return []
    found = []
    for row in rows:
        assert row.val_bpb is not None
        delta = row.val_bpb - baseline.val_bpb
        half = None
        if noise is not None and row.id != baseline.id:
            error = noise.sd * math.sqrt(1 / row.n_seeds + 1 / baseline.n_seeds)
            half = t_quantile(noise.freedom) * error
        deviations = noise_deviations(row.val_bpb, baseline.val_bpb, noise.sd if noise else None)
        found.append(
            StatisticRow(
                architecture_id=row.id,
                rung=rung,
                metric="val_bpb",
                value=delta,
                low=None if half is None else delta - half,
                high=None if half is None else delta + half,
                n=row.n_seeds,
                detail={"baseline": baseline.name, "noise_deviations": deviations},
            )
        )
    return found


def _intervals(
    rows: list[LeaderboardRow], rung: int, noise: SeedNoise | None
) -> Iterable[StatisticRow]:
    """Where each architecture's mean over all seeds lies: Student's interval, noise pooled."""
    if noise is None:
        return
    for row in rows:
        assert row.val_bpb is not None
        half = t_quantile(noise.freedom) * noise.sd / math.sqrt(row.n_seeds)
        yield StatisticRow(
            architecture_id=row.id,
            rung=rung,
            metric="val_bpb",
            value=row.val_bpb,
            low=row.val_bpb - half,
            high=row.val_bpb + half,
            n=row.n_seeds,
            detail={"sd": noise.sd, "freedom": noise.freedom},
        )


def _pareto(
    by_rung: Mapping[int, list[LeaderboardRow]], config: RunConfig
) -> Iterable[StatisticRow]:
    """0 for rows that no row of the same rung beats in every objective."""
    for rung, rows in by_rung.items():
        points = [
            to_point({name: row.measured(name) for name in config.objectives}, config.objectives)
            for row in rows
        ]
        for row, rank in zip(rows, non_dominated_ranks(points), strict=True):
            detail = {"objectives": list(config.objectives)}
            yield StatisticRow(architecture_id=row.id, rung=rung, value=rank, detail=detail)


def _fitness(
    store: Store, run_id: str, rows: list[LeaderboardRow], config: RunConfig
) -> Iterable[StatisticRow]:
    """The configured number of each row, measured from the noise baseline on the same rung."""
    baseline = _noise_baseline(rows, config)
    seeds: dict[int, list[dict[str, float | None]]] = defaultdict(list)
    for score in store.queries.scores(run_id):
        is_ours = baseline is not None and score.architecture_id == baseline.id
        if is_ours and score.task == "corpus":
            seeds[score.rung].append(score.metrics())
    if baseline is not None:  # what is measured apart from any rung
        for rung in seeds:
            seeds[rung].append(
                {f"{RECALL}{task}": share for task, share in baseline.recall.items()}
            )
    chances = chances_of(config.recall)
    yardsticks = {rung: measure_yardstick(found, chances) for rung, found in seeds.items()}
    for row in rows:
        if row.rung in yardsticks:
            metrics = {name: row.measured(name) for name in config.objectives}
            value = fitness_of(config.fitness, metrics, yardsticks[row.rung], config.objectives)
            detail = {"fitness": config.fitness, "baseline": config.ladder.noise_baseline}
            yield StatisticRow(architecture_id=row.id, rung=row.rung, value=value, detail=detail)


def _funnel_line(funnel: Funnel) -> dict[str, int]:
    counts = {
        "proposed": funnel.proposed,
        "duplicates": funnel.duplicates,
        "invalid": funnel.invalid,
        **{f"rejected by {gate}": count for gate, count in funnel.rejected.items()},
        "sound": funnel.sound,
        "training": funnel.training,
        "measured": funnel.measured,
        "failed": funnel.failed,
        "quarantined": funnel.quarantined,
    }
    always = {"proposed", "sound", "measured"}
    return {name: count for name, count in counts.items() if count or name in always}
