"""Fuzzy in-context recall as in MAD (arXiv 2403.17844): keys and values of one to three tokens.

    inputs:  k1 k2 k3 v1 v2 ... k1 k2 k3 v1 v2        test labels:  ... . . v1 v2 .

Nothing marks where a key ends. Test keys always have the longest size. Ids: keys, values, padding,
which fills the left. As published, training asks for every next token, a test for the tokens of
values whose key was stated before; the last pair repeats one that was put in on purpose.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, next_tokens, unlabelled

_Motif = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FuzzyRecall(Task):
    """Keys of up to `key_size` distinct tokens and values of up to `value_size`."""

    vocab_size: int = 16
    seq_len: int = 64
    key_size: int = 3
    value_size: int = 3

    @property
    def n_key_ids(self) -> int:
        return (self.vocab_size - 1) // 2

    @property
    def chance_level(self) -> float:
        """Of guessing any id of a value; knowing the value's first tokens helps a little."""
        return 1 / (self.vocab_size - 1 - self.n_key_ids)

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        padding = self.vocab_size - 1
        tokens = np.full((n_rows, self.seq_len), padding)
        is_asked = np.zeros(tokens.shape, dtype=bool)  # of tokens, not yet of what precedes them
        draw = random.Random(int(rng.integers(1 << 62)))  # faster than numpy, a number at a time
        for row in range(n_rows):
            written, asked = self._row(draw, is_test=split == "test")
            tokens[row, -len(written) :] = written
            is_asked[row, -len(asked) :] = asked
        labels = next_tokens(tokens)
        if split == "test":
            labels[:, :-1] = np.where(is_asked[:, 1:], labels[:, :-1], unlabelled(labels)[:, :-1])
        return tokens, labels

    def _row(self, draw: random.Random, *, is_test: bool) -> tuple[list[int], list[bool]]:
        probe = self._key(draw, is_test=is_test)
        value_of = {probe: self._value(draw)}
        probe_size = len(probe) + len(value_of[probe])
        must_stand_from = draw.randrange(self.seq_len - 2 * probe_size)
        tokens: list[int] = []
        is_asked: list[bool] = []
        stated: set[_Motif] = set()
        longest = self.seq_len - probe_size - self.key_size - self.value_size

        def state(key: _Motif) -> None:
            value = value_of.setdefault(key, self._value(draw))
            tokens.extend(key + value)
            is_asked.extend([False] * len(key) + [key in stated] * len(value))
            stated.add(key)

        while len(tokens) < longest:
            # MAD leaves the probe out where its place falls behind the last pair; here it stands.
            may_be_last = len(tokens) + self.key_size + self.value_size >= longest
            is_due = len(tokens) >= must_stand_from or may_be_last
            is_probe = is_due and probe not in stated
            state(probe if is_probe else self._key(draw, is_test=is_test))
        state(probe)
        return tokens, is_asked

    def _key(self, draw: random.Random, *, is_test: bool) -> _Motif:
        size = self.key_size if is_test else draw.randint(1, self.key_size)
        return tuple(draw.sample(range(self.n_key_ids), size))

    def _value(self, draw: random.Random) -> _Motif:
        ids = range(self.n_key_ids, self.vocab_size - 1)
        return tuple(draw.sample(ids, draw.randint(1, self.value_size)))

    def check(self) -> None:
        if min(self.key_size, self.value_size) < 1:
            raise ConfigError("key_size and value_size must be at least 1.")
        longest_motif = max(self.key_size, self.value_size)
        if self.n_key_ids < longest_motif:
            raise ConfigError(
                f"vocab_size={self.vocab_size} is too small for motifs of {longest_motif} distinct "
                f"tokens; it takes {2 * longest_motif + 1}."
            )
        least = 3 * (self.key_size + self.value_size)
        if self.seq_len < least:
            raise ConfigError(
                f"seq_len={self.seq_len} is too short for key_size={self.key_size} and value_size="
                f"{self.value_size}; it takes {least}."
            )


# MAD's baseline and its longest rows.
TASKS = {
    "fuzzy_recall": FuzzyRecall(),
    "fuzzy_recall-128": FuzzyRecall(seq_len=128, train_rows=12_800),
    "fuzzy_recall-1024": FuzzyRecall(seq_len=1024, train_rows=12_800),
}
