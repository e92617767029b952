"""Modular arithmetic with brackets: the value, modulo 5, of a nested sum.

As in arXiv 2411.12537: numbers are ids 0 .. 4, then + - * ( ) = and padding. An expression of L
tokens is a number, -n, (n) or (-n) for L = 1 .. 4, else (left+right) or (left-right) with the
length of the left one uniform in 1 .. L - 4. `*` has an id and is never drawn. A string of 3 to 40
tokens counts "=", the answer and one of padding; the answer is asked after "=".
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled

_N_SIGNS = 7
_SHORTEST = 5  # tokens of a string that holds one number, nearest to what is asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class ModularBrackets(Task):
    """Strings of `shortest` to `seq_len` tokens, all equally likely, but none below 5."""

    seq_len: int = 24
    test_lengths: tuple[int, ...] = (64,)
    modulus: int = 5
    shortest: int = 3

    @property
    def vocab_size(self) -> int:
        return self.modulus + _N_SIGNS

    @property
    def chance_level(self) -> float:
        return 1 / self.modulus

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        inputs = np.full((n_rows, self.seq_len), self.modulus + 6)  # padding
        labels = unlabelled(inputs)
        draw = random.Random(int(rng.integers(1 << 62)))  # faster than numpy, a number at a time
        for row in range(n_rows):
            length = max(draw.randint(self.shortest, self.seq_len), _SHORTEST) - 3
            tokens: list[int] = []
            value = self._write(length, draw, tokens)
            tokens.append(self.modulus + 5)  # =
            inputs[row, : len(tokens)] = tokens
            labels[row, len(tokens) - 1] = value % self.modulus
        return inputs, labels

    def _write(self, length: int, draw: random.Random, tokens: list[int]) -> int:
        """Appends an expression of `length` tokens and returns its value."""
        plus, minus, _, opening, closing, *_ = range(self.modulus, self.modulus + _N_SIGNS)
        if length < 5:
            number = draw.randrange(self.modulus)
            sign = [minus] if length in (2, 4) else []
            tokens += [opening, *sign, number, closing] if length > 2 else [*sign, number]
            return -number if sign else number
        left_length = draw.randint(1, length - 4)
        tokens.append(opening)
        left = self._write(left_length, draw, tokens)
        is_sum = draw.random() < 0.5
        tokens.append(plus if is_sum else minus)
        right = self._write(length - 3 - left_length, draw, tokens)
        tokens.append(closing)
        return left + right if is_sum else left - right

    def check(self) -> None:
        if self.modulus < 2:
            raise ConfigError(f"modulus={self.modulus} must be at least 2.")
        if self.seq_len < _SHORTEST:
            raise ConfigError(f"seq_len={self.seq_len} is too short; it takes {_SHORTEST}.")
        if not 1 <= self.shortest <= self.seq_len:
            raise ConfigError(f"shortest={self.shortest} must lie in 1 .. seq_len={self.seq_len}.")

    def at_length(self, length: int) -> Self:
        """Strings longer than all of training."""
        shortest = min(self.seq_len, length)
        return replace(self, seq_len=length, test_lengths=(), shortest=shortest)


TASKS = {
    "modular_brackets": ModularBrackets(),
    "modular_brackets-40": ModularBrackets(seq_len=40, test_lengths=(256,)),
}
