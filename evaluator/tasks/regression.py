"""In-context linear regression (arXiv 2208.01066), made of tokens: what is w . x, w never stated?

    inputs:  x11 x12 x13 y1  x21 x22 x23 y2 ...        labels:  . . y1 .  . . y2 . ...

Published, x and w are normal in 20 dimensions and y = w . x, real numbers up to 41 points. Tokens
are whole numbers, so each coordinate of x is one of B equally likely levels of the normal
distribution (ids 0 .. B - 1) and y one of B such bins (ids B .. 2 B - 1). The bins hide a little of
y: least squares is the oracle, and even it is not always right.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression(Task):
    """Rows of points, n_dims + 1 tokens each, with one w a row."""

    seq_len: int = 64
    n_dims: int = 3
    n_levels: int = 16

    @property
    def vocab_size(self) -> int:
        return 2 * self.n_levels

    @property
    def chance_level(self) -> float:
        return 1 / self.n_levels

    def levels(self) -> np.ndarray:
        """What the ids of a coordinate stand for, scaled to a variance of 1: [levels]."""
        middle = (np.arange(self.n_levels) + 0.5) / self.n_levels
        levels = np.array([NormalDist().inv_cdf(p) for p in middle])
        levels /= np.sqrt((levels**2).mean())
        return levels

    def bins(self, y: np.ndarray) -> np.ndarray:
        """The bin 0 .. B - 1 of each y, whose variance is 1 on average."""
        edges = [NormalDist().inv_cdf(i / self.n_levels) for i in range(1, self.n_levels)]
        found: np.ndarray = np.searchsorted(edges, y)
        return found

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        n_points = self.seq_len // (self.n_dims + 1)
        x_ids = rng.integers(self.n_levels, size=(n_rows, n_points, self.n_dims))
        w = rng.standard_normal((n_rows, self.n_dims)) / np.sqrt(self.n_dims)
        y = np.einsum("npd,nd->np", self.levels()[x_ids], w)
        y_ids = self.n_levels + self.bins(y)
        points = np.concatenate([x_ids, y_ids[:, :, None]], axis=2)
        labels = unlabelled(points)
        labels[:, :, -2] = y_ids
        shape = (n_rows, self.seq_len)
        return points.reshape(shape), labels.reshape(shape)

    def check(self) -> None:
        if self.n_dims < 1 or self.n_levels < 2:
            raise ConfigError(
                f"n_dims={self.n_dims} and n_levels={self.n_levels} must be at least 1 and 2."
            )
        if self.seq_len % (self.n_dims + 1):
            raise ConfigError(
                f"seq_len={self.seq_len} must be a multiple of n_dims + 1 = {self.n_dims + 1}."
            )


TASKS = {"regression": Regression(), "regression-41": Regression(seq_len=41 * 21, n_dims=20)}
