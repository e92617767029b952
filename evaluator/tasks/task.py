"""What a synthetic task is: rows drawn from a generator, and how often guessing is right."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ...config import RecallConfig

IGNORED_LABEL = -100


class Task(Protocol):
    """A task is one file with these methods and one line in TASKS."""

    def generate(
        self, n_sequences: int, config: RecallConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Inputs and labels, both int64 [N, T]: label t is the answer after input t, or -100.

        Raises ConfigError for sizes that the task cannot be built with.
        """
        ...

    def chance_level(self, config: RecallConfig) -> float:
        """The accuracy of guessing among all possible answers."""
        ...


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """The share of labelled positions answered right, as a mean over rows; both int64 [N, T]."""
    is_labelled = labels != IGNORED_LABEL
    is_right = (predictions == labels) & is_labelled
    return float((is_right.sum(dim=1) / is_labelled.sum(dim=1)).mean())
