"""Modular arithmetic without brackets: the value, modulo 5, of numbers joined by +, - and *.

As in the xLSTM harness and arXiv 2411.12537: ids 0 padding, 1 +, 2 -, 3 *, 4 =, 5 + n the number n;
`*` binds tighter; a string of 3 to 40 tokens counts "=" and the answer, which is asked after "=".

    inputs:  5+2 +  5+3 *  5+4 =        labels:  .  .  .  .  .  5+4        (2 + 3 * 4) % 5 = 4
    running:                            labels: 5+2 . 5+0 . 5+4 5+4        after every number too
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled

_MINUS, _TIMES, _EQUALS, _FIRST_NUMBER = 2, 3, 4, 5
_N_OPERATORS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Modular(Task):
    """Strings of `shortest` to `seq_len` tokens, all odd lengths equally likely.

    `is_running` asks for the value so far after every number too.
    """

    seq_len: int = 40
    test_lengths: tuple[int, ...] = (256,)
    modulus: int = 5
    shortest: int = 3
    is_running: bool = True

    @property
    def vocab_size(self) -> int:
        return _FIRST_NUMBER + self.modulus

    @property
    def chance_level(self) -> float:
        """1 / 5, as published; always 0 is right more often, since products are often 0."""
        return 1 / self.modulus

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        length = (self.seq_len + 1) // 2 * 2 - 1  # of the longest string, with its answer
        n_numbers = length // 2  # in a full row: number operator number ... number = answer
        numbers = rng.integers(self.modulus, size=(n_rows, n_numbers))
        operators = 1 + rng.integers(_N_OPERATORS, size=(n_rows, n_numbers))
        n_stated = rng.integers((self.shortest + 1) // 2 - 1, n_numbers + 1, size=(n_rows, 1))
        values = self._running_values(numbers, operators)

        inputs = np.zeros((n_rows, self.seq_len), dtype=np.int64)
        labels = unlabelled(inputs)
        position = np.arange(n_numbers)
        operators = np.where(position == n_stated - 1, _EQUALS, operators)
        is_stated = position < n_stated
        inputs[:, 0 : 2 * n_numbers : 2] = np.where(is_stated, _FIRST_NUMBER + numbers, 0)
        inputs[:, 1 : 2 * n_numbers : 2] = np.where(is_stated, operators, 0)
        if self.is_running:
            asked = labels[:, 0 : 2 * n_numbers : 2]
            asked[is_stated] = (_FIRST_NUMBER + values)[is_stated]
        row = np.arange(n_rows)
        last = n_stated[:, 0] - 1
        labels[row, 2 * last + 1] = _FIRST_NUMBER + values[row, last]
        return inputs, labels

    def _running_values(self, numbers: np.ndarray, operators: np.ndarray) -> np.ndarray:
        """The value after each number, [N, numbers]; operator i stands after number i."""
        values = np.empty_like(numbers)
        total = np.zeros(len(numbers), dtype=np.int64)  # of the terms that are complete
        term = numbers[:, 0]
        values[:, 0] = term
        for i in range(1, numbers.shape[1]):
            operator, number = operators[:, i - 1], numbers[:, i]
            is_times = operator == _TIMES
            total = np.where(is_times, total, total + term) % self.modulus
            sign = np.where(operator == _MINUS, -1, 1)
            term = np.where(is_times, term * number, sign * number) % self.modulus
            values[:, i] = (total + term) % self.modulus
        return values

    def check(self) -> None:
        if self.modulus < 2:
            raise ConfigError(f"modulus={self.modulus} must be at least 2.")
        if not 3 <= self.shortest <= self.seq_len:
            raise ConfigError(f"shortest={self.shortest} must lie in 3 .. seq_len={self.seq_len}.")

    def at_length(self, length: int) -> Self:
        """Strings longer than all of training, asked at their end."""
        return replace(
            self,
            seq_len=length,
            test_lengths=(),
            shortest=min(self.seq_len, length),
            is_running=False,
        )


TASKS = {"modular": Modular(), "modular-40": Modular(is_running=False)}
