"""Memorisation as in MAD (arXiv 2403.17844): facts that are the same in every row.

    inputs:  k  ?  k' ?        labels:  .  v  .  v'

A fixed one-to-one map, drawn once with MAD's seed, is learned by heart: keys are the lower half of
the ids, values the upper, the last id is `?`. Training and test rows ask for the same map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled

_MAP_SEED = 12345


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorisation(Task):
    """seq_len / 2 keys a row, drawn with repetition."""

    vocab_size: int = 256
    seq_len: int = 32

    @property
    def n_keys(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def chance_level(self) -> float:
        return 1 / self.n_keys

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        values = np.random.default_rng(_MAP_SEED).permutation(
            np.arange(self.n_keys, self.vocab_size - 1)
        )
        keys = rng.integers(self.n_keys, size=(n_rows, self.seq_len // 2))
        inputs = np.full((n_rows, self.seq_len), self.vocab_size - 1)
        inputs[:, ::2] = keys
        labels = unlabelled(inputs)
        labels[:, 1::2] = values[keys]
        return inputs, labels

    def check(self) -> None:
        if self.seq_len % 2:
            raise ConfigError(f"seq_len={self.seq_len} must be even.")
        if self.vocab_size < 4:
            raise ConfigError(f"vocab_size={self.vocab_size} must be at least 4.")


TASKS = {
    "memorisation": Memorisation(),
    "memorisation-256": Memorisation(train_rows=256),
    "memorisation-8192": Memorisation(vocab_size=8192, train_rows=256),
}
