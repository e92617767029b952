"""In-context language learning (RegBench, arXiv 2401.12973): strings of a language never seen.

    inputs:  c a c | c b a c | c a ...        train labels:  a c . c b a c . c a ...

Each row has a random automaton of its own: 4 to 12 states with 1 to 3 edges each, to different
other states and with different symbols of a random alphabet, all edges equally likely. A row is 10
to 19 strings of 1 to 49 symbols, each from the start. Training asks for every next symbol. RegBench
counts any symbol as right that the automaton allows; so that one label says it, a test asks where
the automaton allows only one. Which those are is not told: an oracle that knows it is always right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .task import IGNORED_LABEL, Rows, Split, Task, next_tokens

_MOST_EDGES = 3
_Automaton = list[list[tuple[int, int]]]  # the edges of each state: symbol, next state


@dataclass(frozen=True, kw_only=True, slots=True)
class RegBench(Task):
    """Rows cut at seq_len, or padded. Ids: symbols, the separator `|`, padding."""

    vocab_size: int = 20
    seq_len: int = 128
    most_states: int = 12
    fewest_strings: int = 10
    most_strings: int = 19
    longest_string: int = 12

    @property
    def n_symbols(self) -> int:
        return self.vocab_size - 2

    @property
    def chance_level(self) -> float:
        """Of guessing any symbol; the states of a row use fewer of them."""
        return 1 / self.n_symbols

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        inputs, n_allowed = self.draw(n_rows, rng)
        labels = next_tokens(inputs)
        is_asked = n_allowed == 1 if split == "test" else n_allowed > 0
        return inputs, np.where(is_asked, labels, IGNORED_LABEL)

    def draw(self, n_rows: int, rng: np.random.Generator) -> Rows:
        """Rows, and how many symbols may follow each token: 0 before a separator; both [N, T]."""
        separator, padding = self.vocab_size - 2, self.vocab_size - 1
        tokens = np.full((n_rows, self.seq_len), padding)
        n_allowed = np.zeros_like(tokens)
        draw = random.Random(int(rng.integers(1 << 62)))  # faster than numpy, a number at a time
        for row in range(n_rows):
            automaton = self._automaton(draw)
            written: list[int] = []
            allowed: list[int] = []  # before each token
            for _ in range(draw.randint(self.fewest_strings, self.most_strings)):
                state = 0
                for _ in range(draw.randint(1, self.longest_string)):
                    allowed.append(len(automaton[state]))
                    symbol, state = draw.choice(automaton[state])
                    written.append(symbol)
                written.append(separator)
                allowed.append(0)
                if len(written) > self.seq_len:
                    break
            written = written[:-1][: self.seq_len]  # no separator after the last
            tokens[row, : len(written)] = written
            n_allowed[row, : len(written) - 1] = allowed[1 : len(written)]
        return tokens, n_allowed

    def _automaton(self, draw: random.Random) -> _Automaton:
        n_states = draw.randint(_MOST_EDGES + 1, self.most_states)
        alphabet = draw.sample(range(self.n_symbols), draw.randint(_MOST_EDGES + 1, self.n_symbols))
        automaton = []
        for state in range(n_states):
            n_edges = draw.randint(1, _MOST_EDGES)
            others = [other for other in range(n_states) if other != state]
            symbols, targets = draw.sample(alphabet, n_edges), draw.sample(others, n_edges)
            automaton.append(list(zip(symbols, targets, strict=True)))
        return automaton

    def check(self) -> None:
        if self.n_symbols <= _MOST_EDGES:
            raise ConfigError(f"vocab_size={self.vocab_size} must be at least {_MOST_EDGES + 3}.")
        if self.most_states <= _MOST_EDGES:
            raise ConfigError(f"most_states={self.most_states} must be at least {_MOST_EDGES + 1}.")
        if not 1 <= self.fewest_strings <= self.most_strings or self.longest_string < 2:
            raise ConfigError(
                f"fewest_strings={self.fewest_strings} must lie in 1 .. most_strings="
                f"{self.most_strings}, and longest_string={self.longest_string} be at least 2."
            )


# Published: 5,000 rows to train on, 950 tokens at most.
TASKS = {
    "regbench": RegBench(),
    "regbench-950": RegBench(seq_len=950, longest_string=49, train_rows=5000),
}
