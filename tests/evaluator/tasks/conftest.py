"""Rows of a task by seed, and the share of its answers that predictions get right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from linearch.evaluator.tasks import IGNORED_LABEL, Rows, Split, Task

Draw = Callable[..., Rows]
ShareRight = Callable[[np.ndarray, np.ndarray], float]


@pytest.fixture(scope="session")
def draw() -> Draw:
    def rows(task: Task, n_rows: int = 200, *, seed: int = 0, split: Split = "test") -> Rows:
        return task.generate(n_rows, np.random.default_rng(seed), split)

    return rows


@pytest.fixture(scope="session")
def share_right() -> ShareRight:
    def share(predictions: np.ndarray, labels: np.ndarray) -> float:
        is_asked = labels != IGNORED_LABEL
        return float((predictions == labels)[is_asked].mean())

    return share
