"""Choosing parents by non-dominated sorting and crowding (NSGA-II, Deb et al. 2002).

A point has one number per objective, less is better, None where nothing was measured. What was not
measured never wins: every complete point dominates every incomplete one.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Sequence

import numpy as np

from .fitness import PARETO
from .objectives import Point, check_objectives, to_point
from .proposers.proposal import Measured

_FEWEST_PEERS = 4  # on the highest rung, before lower rungs are left out of the comparison


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse and somewhere better; missing counts as infinitely bad."""
    if (None in one) != (None in other):
        return None in other
    pairs = [(_or_inf(a), _or_inf(b)) for a, b in zip(one, other, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def non_dominated_ranks(points: Sequence[Point]) -> list[int]:
    """0 for what nothing dominates, 1 for what only rank 0 dominates, ...

    Efficient non-dominated sort (Zhang et al. 2015): in lexicographic order a point is dominated
    by earlier ones alone, so its front is found by bisection over the fronts so far.
    """
    ranks = [-1] * len(points)
    n_above = 0  # complete points fill the first fronts, since any of them beats a gap
    for has_gap in (False, True):
        fronts: list[list[tuple[float, ...]]] = []
        members = [i for i, point in enumerate(points) if (None in point) == has_gap]
        keys = {i: tuple(map(_or_inf, points[i])) for i in members}
        for i in sorted(members, key=keys.__getitem__):
            front = _front_of(keys[i], fronts)
            if front == len(fronts):
                fronts.append([])
            fronts[front].append(keys[i])
            ranks[i] = n_above + front
        n_above += len(fronts)
    return ranks


def _front_of(key: tuple[float, ...], fronts: Sequence[list[tuple[float, ...]]]) -> int:
    """The first front in which nothing dominates `key`: if one holds it up, all before it do."""
    return bisect.bisect_left(fronts, True, key=lambda known: not _is_dominated(key, known))


def _is_dominated(key: tuple[float, ...], known: Sequence[tuple[float, ...]]) -> bool:
    """Whether a point of `known`, all lexicographically not above `key`, dominates it."""
    rows = np.asarray(known)
    return bool((np.all(rows <= key, axis=1) & np.any(rows < key, axis=1)).any())


def crowding_distances(points: Sequence[Point], ranks: Sequence[int]) -> list[float]:
    """How far apart a point's neighbours on its front lie, summed over objectives, each objective
    scaled to the front's extent; infinite at the ends, so that extremes are kept."""
    distances = [0.0] * len(points)
    for rank in set(ranks):
        front = [i for i, other in enumerate(ranks) if other == rank]
        for objective in range(len(points[front[0]])):
            _add_gaps(distances, front, [_or_inf(points[i][objective]) for i in front])
    return distances


def best_first(points: Sequence[Point]) -> list[int]:
    """Indices by rank, then by crowding distance (lonelier first), then as given."""
    ranks = non_dominated_ranks(points)
    crowding = crowding_distances(points, ranks)
    return sorted(range(len(points)), key=lambda i: (ranks[i], -crowding[i], i))


def choose_parents(
    rows: Sequence[Measured],
    objectives: Sequence[str],
    n: int,
    rng: random.Random,
    *,
    fitness: str = PARETO,
) -> list[Measured]:
    """`n` different parents (fewer if there are fewer) by tournaments of two among the measured.

    Scores of different rungs do not compare: with at least four rows on the highest rung only
    those take part, else all do with their score of rung 0. A fitness other than `pareto` measures
    from a baseline of the same rung, so all that have one take part. Raises ConfigError for an
    unknown objective.
    """
    check_objectives(objectives)
    if fitness == PARETO:
        eligible, points = _comparable(rows, objectives)
        order = [eligible[i] for i in best_first(points)]
    else:
        order = fittest_first(rows)
    parents: list[Measured] = []
    while order and len(parents) < n:
        places = rng.choices(range(len(order)), k=2)
        parents.append(order.pop(min(places)))
    return parents


def fittest_first(rows: Sequence[Measured]) -> list[Measured]:
    """The rows with a fitness, highest first."""
    fit = [row for row in rows if row.fitness is not None]
    return sorted(fit, key=lambda row: -(row.fitness or 0.0))


def _comparable(
    rows: Sequence[Measured], objectives: Sequence[str]
) -> tuple[list[Measured], list[Point]]:
    measured = [row for row in rows if row.rung is not None]
    top = max((row.rung for row in measured if row.rung is not None), default=None)
    peers = [row for row in measured if row.rung == top]
    if len(peers) >= _FEWEST_PEERS:
        return peers, [to_point(row.metrics, objectives) for row in peers]
    return measured, [
        to_point({**row.metrics, "val_bpb": row.rung_0_val_bpb}, objectives) for row in measured
    ]


def _add_gaps(distances: list[float], front: Sequence[int], values: Sequence[float]) -> None:
    """Adds one objective's share of the crowding distance to the points of one front."""
    order = sorted(range(len(front)), key=lambda place: values[place])
    low, high = values[order[0]], values[order[-1]]
    extent = high - low
    if not extent > 0 or math.isinf(extent):
        return  # all alike, or not measured: this objective tells nothing of their spread
    distances[front[order[0]]] = distances[front[order[-1]]] = math.inf
    for before, place, after in zip(order, order[1:], order[2:], strict=False):
        distances[front[place]] += (values[after] - values[before]) / extent


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
