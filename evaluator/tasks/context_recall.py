"""In-context recall, plain and noisy, as in MAD (arXiv 2403.17844), with many questions a row.

    inputs:  k v k' v' n n k v k' v'        test labels:  . . . . . . v . v' .

A row is key-value pairs of a map of its own, a key often again: a value is asked for where its key
was stated before. The noisy task puts pairs of noise tokens between them. Ids: keys, values, noise.
As published, training asks for every next token, a test for those values alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, next_tokens, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextRecall(Task):
    """`n_noise_ids` of the vocabulary are noise, and about `noise_share` of the pairs."""

    vocab_size: int = 16
    seq_len: int = 64
    n_noise_ids: int = 0
    noise_share: float = 0.0

    @property
    def n_keys(self) -> int:
        return (self.vocab_size - self.n_noise_ids) // 2

    @property
    def chance_level(self) -> float:
        return 1 / (self.vocab_size - self.n_noise_ids - self.n_keys)

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        n_pairs, first_noise = self.seq_len // 2, self.vocab_size - self.n_noise_ids
        value_of = rng.integers(self.n_keys, first_noise, size=(n_rows, self.n_keys))
        keys = rng.integers(self.n_keys, size=(n_rows, n_pairs))
        is_noise = rng.random((n_rows, n_pairs)) < self.noise_share
        is_noise[np.arange(n_rows), rng.integers(n_pairs - 1, size=n_rows)] = False
        is_noise[:, -1] = False
        keys[:, -1] = self._stated_key(keys[:, :-1], is_noise[:, :-1], rng)

        pairs = np.stack([keys, np.take_along_axis(value_of, keys, axis=1)], axis=2)
        if self.n_noise_ids:
            noise = rng.integers(first_noise, self.vocab_size, size=pairs.shape)
            pairs = np.where(is_noise[:, :, None], noise, pairs)
        inputs = pairs.reshape(n_rows, self.seq_len)
        if split == "train":
            return inputs, next_tokens(inputs)
        labels = unlabelled(inputs)
        is_asked = _seen_before(keys, is_noise, self.n_keys)
        labels[:, ::2] = np.where(is_asked, pairs[:, :, 1], labels[:, ::2])
        return inputs, labels

    def _stated_key(
        self, keys: np.ndarray, is_noise: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """For each row one of its keys, all that it states equally likely: [N]."""
        is_stated = np.zeros((len(keys), self.n_keys + 1), dtype=bool)
        np.put_along_axis(is_stated, np.where(is_noise, self.n_keys, keys), True, axis=1)
        lots = rng.random((len(keys), self.n_keys))
        drawn: np.ndarray = np.where(is_stated[:, :-1], lots, -1).argmax(axis=1)
        return drawn

    def check(self) -> None:
        if self.seq_len % 2 or self.seq_len < 4:
            raise ConfigError(f"seq_len={self.seq_len} must be even and at least 4.")
        if not 0 <= self.noise_share < 1:
            raise ConfigError(f"noise_share={self.noise_share} must lie in 0 .. 1, without 1.")
        if (self.noise_share > 0) != (self.n_noise_ids > 0):
            raise ConfigError(
                f"noise_share={self.noise_share} and n_noise_ids={self.n_noise_ids} must both be 0 "
                "or both be more."
            )
        if self.n_keys < 1:
            raise ConfigError(
                f"vocab_size={self.vocab_size} leaves no keys beside n_noise_ids="
                f"{self.n_noise_ids}; it takes {self.n_noise_ids + 2}."
            )


def _seen_before(keys: np.ndarray, is_noise: np.ndarray, n_keys: int) -> np.ndarray:
    """Whether each pair's key was stated by an earlier pair of its row: [N, pairs]."""
    is_seen = np.zeros((len(keys), n_keys), dtype=bool)
    seen = np.zeros_like(is_noise)
    row = np.arange(len(keys))
    for i in range(keys.shape[1]):
        is_key = ~is_noise[:, i]
        seen[:, i] = is_seen[row, keys[:, i]] & is_key
        is_seen[row[is_key], keys[is_key, i]] = True
    return seen


# MAD's baselines and their longest rows.
TASKS = {
    "context_recall": ContextRecall(),
    "noisy_recall": ContextRecall(vocab_size=32, n_noise_ids=16, noise_share=0.2),
    **{
        f"context_recall-{seq_len}": ContextRecall(seq_len=seq_len, train_rows=12_800)
        for seq_len in (128, 1024)
    },
    **{
        f"noisy_recall-{seq_len}": ContextRecall(
            vocab_size=32, seq_len=seq_len, n_noise_ids=16, noise_share=0.2, train_rows=12_800
        )
        for seq_len in (128, 1024)
    },
}
