"""Multi-query associative recall, as defined by Zoology (arXiv 2312.04927).

A row states N key-value pairs, then asks for each key once, at gaps that follow a power law:

              key val key val         query               query
    inputs:    2   8   4   7   .   .   4   .   .   .   .   2   .   .   .   .
    labels:    .   .   .   .   .   .   7   .   .   .   .   8   .   .   .   .

Keys are ids 1 .. V/2 - 1 and values V/2 .. V - 1, each at most once a row. A `.` is a random id
among the inputs and -100 among the labels. A small vocabulary separates architectures less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled

# The gap of i slots has probability proportional to i ** (POWER - 1): near repeats are the most
# frequent, as of bigrams in text. 1 would make it uniform.
POWER = 0.01
_MAX_NOISE = 1 << 22  # numbers held at once while drawing


@dataclass(frozen=True, kw_only=True, slots=True)
class MQAR(Task):
    """`n_pairs` keys and their values."""

    vocab_size: int = 64
    seq_len: int = 64
    n_pairs: int = 8

    @property
    def chance_level(self) -> float:
        """1 / (V / 2). Remembering which values were stated, but not whose, gives 1 / N."""
        return 1 / (self.vocab_size - self.vocab_size // 2)

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        n_keys = self.vocab_size // 2
        keys = 1 + _distinct(np.ones(n_keys - 1), n_rows, self.n_pairs, rng)  # [N, P]
        values = n_keys + _distinct(np.ones(self.vocab_size - n_keys), n_rows, self.n_pairs, rng)
        gaps = np.arange(1, self.seq_len // 2 - self.n_pairs + 1)
        slots = _distinct(gaps ** (POWER - 1), n_rows, self.n_pairs, rng)
        queries = 2 * self.n_pairs + 2 * slots  # every second position after the pairs

        inputs = rng.integers(self.vocab_size, size=(n_rows, self.seq_len))
        inputs[:, 0 : 2 * self.n_pairs : 2] = keys
        inputs[:, 1 : 2 * self.n_pairs : 2] = values
        np.put_along_axis(inputs, queries, keys, axis=1)
        labels = unlabelled(inputs)
        np.put_along_axis(labels, queries, values, axis=1)
        return inputs, labels

    def check(self) -> None:
        if self.n_pairs < 1:
            raise ConfigError(f"n_pairs={self.n_pairs} must be at least 1.")
        if self.seq_len < 4 * self.n_pairs:
            raise ConfigError(
                f"seq_len={self.seq_len} is too short for n_pairs={self.n_pairs} and their "
                f"queries; it takes {4 * self.n_pairs}."
            )
        if self.seq_len % 2:
            raise ConfigError(f"seq_len={self.seq_len} must be even.")
        if self.vocab_size // 2 - 1 < self.n_pairs:
            raise ConfigError(
                f"vocab_size={self.vocab_size} has {self.vocab_size // 2 - 1} keys, too few for "
                f"n_pairs={self.n_pairs}; it takes {2 * self.n_pairs + 2}."
            )


def _distinct(
    weights: np.ndarray, n_rows: int, n_drawn: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices drawn one after another by weight, none twice in a row: [n_rows, n_drawn].

    The largest of log weight + Gumbel noise, in order, are such a draw.
    """
    n_at_once = max(1, _MAX_NOISE // len(weights))
    drawn = []
    for first in range(0, n_rows, n_at_once):
        shape = (min(n_at_once, n_rows - first), len(weights))
        scores = rng.gumbel(size=shape) + np.log(weights)
        top = np.argpartition(-scores, n_drawn - 1, axis=1)[:, :n_drawn]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        drawn.append(np.take_along_axis(top, order, axis=1))
    return np.concatenate(drawn)


# The four settings of Zoology's figure 2, T x N.
TASKS = {
    "mqar": MQAR(),
    **{
        f"mqar-{seq_len}x{n_pairs}": MQAR(
            vocab_size=8192, seq_len=seq_len, n_pairs=n_pairs, train_rows=100_000
        )
        for seq_len, n_pairs in ((64, 4), (128, 8), (256, 16), (512, 64))
    },
}
