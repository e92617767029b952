"""Word problems of finite groups (arXiv 2404.08819): the product of all elements read so far.

    inputs:   a     b      c        labels:  a   a*b   a*b*c

A5, A4 x Z5 and Z60 all have order 60 and so the same chance, but only A5 is not solvable: its words
are complete for NC1, so (unless that is TC0) no recurrence with diagonal transitions and a fixed
depth solves them at every length. S5 has order 120. As published, all elements are read and every
position is asked. S3 and Z6, of order 6, show whether order matters within reach of a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product
from typing import Self

import numpy as np

from ...errors import ConfigError
from .task import Rows, Split, Task, unlabelled


@dataclass(frozen=True, kw_only=True, slots=True)
class Words(Task):
    """Rows of elements, all equally likely; answers at positions from `first_asked` on."""

    seq_len: int = 20
    test_lengths: tuple[int, ...] = (40,)
    group: str = "A5"
    first_asked: int = 0

    @property
    def vocab_size(self) -> int:
        return len(product_table(self.group))

    @property
    def chance_level(self) -> float:
        return 1 / self.vocab_size

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        table = product_table(self.group)
        inputs = rng.integers(len(table), size=(n_rows, self.seq_len))
        labels = unlabelled(inputs)
        so_far = inputs[:, 0]
        for t in range(self.seq_len):
            so_far = table[so_far, inputs[:, t]] if t else so_far
            if t >= self.first_asked:
                labels[:, t] = so_far
        return inputs, labels

    def check(self) -> None:
        if self.group not in _GROUPS:
            raise ConfigError(f"There is no group {self.group!r}; known are {', '.join(_GROUPS)}.")

    def at_length(self, length: int) -> Self:
        """Longer words, asked at the positions that training never reached."""
        first_asked = min(self.seq_len, length - 1)
        return replace(self, seq_len=length, test_lengths=(), first_asked=first_asked)


@cache
def product_table(group: str) -> np.ndarray:
    """table[a, b] is the number of the element a * b, where a was read before b: [order, order]."""
    elements = _GROUPS[group]
    number = {element: i for i, element in enumerate(elements)}
    return np.array([[number[_compose(a, b)] for b in elements] for a in elements])


def _compose(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """i -> a(b(i)) of permutations written as their images of 0, 1, ..."""
    return tuple(a[i] for i in b)


def _alternating(n: int) -> list[tuple[int, ...]]:
    return [p for p in permutations(range(n)) if _n_inversions(p) % 2 == 0]


def _n_inversions(p: tuple[int, ...]) -> int:
    return sum(p[i] > p[j] for j in range(len(p)) for i in range(j))


def _cycles(n: int, first: int) -> list[tuple[int, ...]]:
    """The cyclic group of order n, as permutations of first, ..., first + n - 1."""
    return [tuple(first + (i + shift) % n for i in range(n)) for shift in range(n)]


_GROUPS: dict[str, list[tuple[int, ...]]] = {
    "A5": _alternating(5),
    "A4xZ5": [a + z for a, z in product(_alternating(4), _cycles(5, 4))],
    "Z60": _cycles(60, 0),
    "S5": list(permutations(range(5))),
    "S3": list(permutations(range(3))),
    "Z6": _cycles(6, 0),
}

_SMALL = ("S3", "Z6")
_PUBLISHED = ("A5", "A4xZ5", "Z60", "S5")

# Published words have 2 to 20 elements; since every position is asked, a row of 20 holds them all.
TASKS = {
    **{name.lower(): Words(group=name, seq_len=32, test_lengths=(128,)) for name in _SMALL},
    **{name.lower(): Words(group=name, seq_len=16, test_lengths=(32,)) for name in _PUBLISHED},
    **{f"{name.lower()}-20": Words(group=name) for name in _PUBLISHED},
}
