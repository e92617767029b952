"""Parity: whether the number of ones so far is odd, the smallest task of tracking a state.

As in the xLSTM harness and arXiv 2411.12537: bits are ids 1 and 2, the answer too (1 is even), 0 is
padding; a string of 3 to 40 tokens counts the answer's, which is asked after the last bit alone.

    inputs:  2 1 2 2 0 0      labels:  . . . 2 . .      running:  2 2 1 2 . .

A linear recurrence needs a negative eigenvalue: transitions in [0, 1] cannot flip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity(Task):
    """Strings of `shortest` to `seq_len` tokens, all equally likely.

    `is_running` asks after every bit from position `first_asked` on, not after the last alone.
    """

    seq_len: int = 40
    test_lengths: tuple[int, ...] = (256,)
    shortest: int = 40
    is_running: bool = True
    first_asked: int = 0

    @property
    def vocab_size(self) -> int:
        return 3

    @property
    def chance_level(self) -> float:
        return 1 / 2

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        bits = rng.integers(2, size=(n_rows, self.seq_len))
        n_bits = rng.integers(self.shortest, self.seq_len + 1, size=(n_rows, 1)) - 1
        position = np.arange(self.seq_len)
        inputs = np.where(position < n_bits, 1 + bits, 0)
        labels = 1 + bits.cumsum(axis=1) % 2
        if self.is_running:
            is_asked = (position < n_bits) & (position >= self.first_asked)
        else:
            is_asked = position == n_bits - 1
        return inputs, np.where(is_asked, labels, unlabelled(inputs))

    def check(self) -> None:
        if not 2 <= self.shortest <= self.seq_len:
            raise ConfigError(f"shortest={self.shortest} must lie in 2 .. seq_len={self.seq_len}.")

    def at_length(self, length: int) -> Self:
        """Strings longer than all of training, or running answers at positions after them."""
        return replace(
            self,
            seq_len=length,
            test_lengths=(),
            shortest=length if self.is_running else min(self.seq_len, length),
            first_asked=min(self.seq_len, length - 2),
        )


TASKS = {
    "parity": Parity(),
    "parity-40": Parity(shortest=3, is_running=False),
}
