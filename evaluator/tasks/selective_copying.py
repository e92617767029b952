"""Selective copying as in MAD (arXiv 2403.17844): repeat the tokens between the blanks, in order.

    inputs:  _ 3 _ _ 7 1 # _ _ _        labels:  . . . . . . . 3 7 1

Ids 0 .. V - 3 are to be copied, V - 2 is the blank `_` and V - 1 the `#` that asks for the copy.
Each blank stands before a random one of the tokens to copy, so `#` follows the last one at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectiveCopying(Task):
    """`n_to_copy` tokens in a row of seq_len, the copy included."""

    vocab_size: int = 16
    seq_len: int = 64
    n_to_copy: int = 8

    @property
    def chance_level(self) -> float:
        return 1 / (self.vocab_size - 2)

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        blank, asks = self.vocab_size - 2, self.vocab_size - 1
        n_blanks = self.seq_len - 2 * self.n_to_copy - 1
        tokens = rng.integers(self.vocab_size - 2, size=(n_rows, self.n_to_copy))
        stands_before = rng.integers(self.n_to_copy, size=(n_rows, n_blanks, 1))
        order = np.arange(self.n_to_copy)
        places = order + (stands_before <= order).sum(axis=1)  # [N, to copy]

        inputs = np.full((n_rows, self.seq_len), blank)
        np.put_along_axis(inputs, places, tokens, axis=1)
        inputs[:, -self.n_to_copy - 1] = asks
        labels = unlabelled(inputs)
        labels[:, -self.n_to_copy :] = tokens
        return inputs, labels

    def check(self) -> None:
        if self.n_to_copy < 1:
            raise ConfigError(f"n_to_copy={self.n_to_copy} must be at least 1.")
        if self.seq_len <= 2 * self.n_to_copy + 1:
            raise ConfigError(
                f"seq_len={self.seq_len} is too short for n_to_copy={self.n_to_copy}; it takes "
                f"{2 * self.n_to_copy + 2}."
            )
        if self.vocab_size < 3:
            raise ConfigError(f"vocab_size={self.vocab_size} must be at least 3.")


# MAD's baseline and its longest; 4096 is the length of Mamba's own version (arXiv 2312.00752).
TASKS = {
    "selective_copying": SelectiveCopying(),
    "selective_copying-256": SelectiveCopying(seq_len=256, n_to_copy=16, train_rows=12_800),
    "selective_copying-1024": SelectiveCopying(seq_len=1024, n_to_copy=16, train_rows=12_800),
    "selective_copying-4096": SelectiveCopying(seq_len=4096, n_to_copy=16),
}
