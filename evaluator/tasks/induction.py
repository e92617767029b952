"""Induction heads (arXiv 2312.00752, table 2): what followed the special token the first time?

    inputs:  4  1  7 [15] 9  3  3  8 [15]        labels:  .  .  .  .  .  .  .  .  9

Ids 0 .. V - 2 are random; V - 1 stands once at a random place and again at the end. Trained at 256
tokens, tested up to 2**20: a mechanism that solves it at all need not know the length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Induction(Task):
    """One question a row."""

    vocab_size: int = 16
    seq_len: int = 64
    test_lengths: tuple[int, ...] = (128, 256)

    @property
    def chance_level(self) -> float:
        return 1 / (self.vocab_size - 1)

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        inputs = rng.integers(self.vocab_size - 1, size=(n_rows, self.seq_len))
        place = rng.integers(self.seq_len - 2, size=n_rows)
        row = np.arange(n_rows)
        inputs[row, place] = inputs[:, -1] = self.vocab_size - 1
        labels = unlabelled(inputs)
        labels[:, -1] = inputs[row, place + 1]
        return inputs, labels

    def check(self) -> None:
        if self.seq_len < 3:
            raise ConfigError(f"seq_len={self.seq_len} is too short; it takes 3.")


TASKS = {
    "induction": Induction(),
    "induction-256": Induction(seq_len=256, test_lengths=(512, 1024, 4096)),
}
