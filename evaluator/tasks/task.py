"""What a synthetic task is: sizes of its own, rows drawn with them, and how often a guess is right.

Imports no torch: a driver names and checks tasks before anything is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from ...errors import ConfigError

IGNORED_LABEL = -100

Split = Literal["train", "test"]
Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task(ABC):
    """A frozen dataclass whose fields are the task's sizes; refuses sizes it cannot be built with.

    `test_lengths` are further lengths of a row that the trained model is tested at, apart.
    `train_rows` is how many rows there are to train on, which are then repeated; None: each is new.
    """

    seq_len: int
    test_lengths: tuple[int, ...] = ()
    train_rows: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, with what it takes, for sizes that do not go together."""
        self.check()
        for name, least in (("seq_len", 2), ("vocab_size", 2), ("train_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} must be at least {least}.")
        if min(self.test_lengths, default=2) < 2 or self.seq_len in self.test_lengths:
            raise ConfigError(
                f"test_lengths={list(self.test_lengths)} must be 2 or more and other than "
                f"seq_len={self.seq_len}, which is always tested."
            )

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many token ids there are; inputs and labels are below it."""

    @property
    @abstractmethod
    def chance_level(self) -> float:
        """The accuracy of guessing among all answers that are possible."""

    @abstractmethod
    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        """Inputs and labels, both int64 [N, T]: label t is the answer after input t, or -100.

        The rows depend on the sizes and on `rng` alone.
        """

    def check(self) -> None:  # noqa: B027 - most tasks have nothing to refuse
        """Raises ConfigError for the task's own sizes where they do not go together."""

    def at_length(self, length: int) -> Self:
        """The same task on rows of `length` tokens; raises ConfigError if there is none."""
        return replace(self, seq_len=length, test_lengths=())


def unlabelled(inputs: np.ndarray) -> np.ndarray:
    """Labels of the shape of `inputs` in which no position has an answer yet."""
    return np.full(inputs.shape, IGNORED_LABEL, dtype=np.int64)


def next_tokens(tokens: np.ndarray) -> np.ndarray:
    """Labels of language modelling, [N, T]: the token that follows, and none after the last."""
    labels = unlabelled(tokens)
    labels[:, :-1] = tokens[:, 1:]
    return labels
