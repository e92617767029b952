"""Differences between two that saw the same batches and were scored on the same windows.

Over seeds: what a seed does to all alike, by its batches and their order, is taken out as blocks
are (Fisher, The Design of Experiments, 1935); what is left is the noise of a paired difference.
Over windows: of one pair of weights or a few, it says nothing of other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .comparison import SeedNoise, t_quantile

BySeed = Mapping[int, float]  # one architecture's scores


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowDifference:
    """The mean of the first's less the second's over `n` windows, with the interval that the choice
    of windows leaves; it holds for these weights only."""

    delta: float
    low: float
    high: float
    n: int


def pool_paired_noise(groups: Sequence[BySeed]) -> SeedNoise | None:
    """The deviation that is left when each architecture and each seed has a mean of its own, over
    those with several seeds; None where nothing is left to tell it by.

    Two single trainings of the same seed differ by sqrt(2) of it, as two of `pool_seed_noise` do
    whose seeds may differ; so it takes its place in a comparison of the same seeds.
    """
    repeated = [group for group in groups if len(group) > 1]
    seeds = sorted({seed for group in repeated for seed in group})
    cells = [(row, seeds.index(seed)) for row, group in enumerate(repeated) for seed in group]
    design = np.zeros((len(cells), len(repeated) + len(seeds)))
    for i, (row, seed) in enumerate(cells):
        design[i, row] = design[i, len(repeated) + seed] = 1.0
    freedom = len(cells) - (int(np.linalg.matrix_rank(design)) if cells else 0)
    if not freedom:
        return None
    values = np.array([value for group in repeated for value in group.values()])
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return SeedNoise(
        sd=math.sqrt(float(left @ left) / freedom), freedom=freedom, n_groups=len(repeated)
    )


def window_difference(
    first: Sequence[NDArray[np.float64]],
    second: Sequence[NDArray[np.float64]],
    *,
    n_comparisons: int,
    confidence: float = 0.95,
) -> WindowDifference:
    """Student's paired interval over windows of the mean over trainings; each training [N] is the
    other's of the same place. Windows count as independent, which those of one file are not quite.
    """
    differences = np.mean([a - b for a, b in zip(first, second, strict=True)], axis=0)
    n = len(differences)
    delta = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = t_quantile(n - 1, n_comparisons, confidence) * error
    return WindowDifference(delta=delta, low=delta - half, high=delta + half, n=n)


def in_bits_per_byte(window_nats: Sequence[float], val_bpb: float) -> NDArray[np.float64]:
    """Each window's share of the score [N], such that their mean is `val_bpb`."""
    nats = np.asarray(window_nats, dtype=np.float64)
    return np.asarray(nats * (val_bpb / nats.mean()), dtype=np.float64)
