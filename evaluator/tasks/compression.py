"""Compression after MAD (arXiv 2403.17844): how much of a random sequence its summary holds.

    inputs:  3 7 1 # p0 p1 p2        labels:  . . . . 3 7 1

MAD squeezes the row into the vector at `#`, from which an MLP with position embeddings restores it.
A causal backbone is no auto-encoder, so positions are asked for by tokens p0, p1, ... of their own:
of a recurrence the state is the summary, but attention can look back, and does not compress.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression(Task):
    """Rows of n symbols, `#` and n questions, seq_len = 2 n + 1; MAD's vocabulary includes `#`."""

    n_symbols: int = 15  # to choose from
    seq_len: int = 63

    @property
    def vocab_size(self) -> int:
        return self.n_symbols + 1 + self.seq_len // 2

    @property
    def chance_level(self) -> float:
        return 1 / self.n_symbols

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        n = self.seq_len // 2
        symbols = rng.integers(self.n_symbols, size=(n_rows, n))
        asking = np.arange(self.n_symbols, self.vocab_size)  # `#`, p0, p1, ...
        inputs = np.concatenate([symbols, np.broadcast_to(asking, (n_rows, n + 1))], axis=1)
        labels = unlabelled(inputs)
        labels[:, n + 1 :] = symbols
        return inputs, labels

    def check(self) -> None:
        if self.n_symbols < 2:
            raise ConfigError(f"n_symbols={self.n_symbols} must be at least 2.")
        if self.seq_len % 2 == 0:
            raise ConfigError(f"seq_len={self.seq_len} must be odd: n symbols, # and n questions.")


# MAD's row of 32 is 31 symbols and `#`; its longest is 256.
TASKS = {
    "compression": Compression(),
    "compression-32": Compression(train_rows=12_800),
    "compression-256": Compression(seq_len=511, train_rows=12_800),
}
