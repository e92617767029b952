"""Multi-query associative recall, as defined by Zoology (arXiv 2312.04927).

A row states N key-value pairs, then asks for each key once, at gaps that follow a power law:

              key val key val         query               query
    inputs:    2   8   4   7   .   .   4   .   .   .   .   2   .   .   .   .
    labels:    .   .   .   .   .   .   7   .   .   .   .   8   .   .   .   .

Keys are ids 1 .. V/2 - 1 and values V/2 .. V - 1, each at most once a row. A `.` is a random id
among the inputs and -100 among the labels. Zoology's figure 2 has V = 8192, (T, N) of (64, 4),
(128, 8), (256, 16), (512, 64) and 100,000 rows; a small vocabulary separates architectures less.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import RecallConfig
from ...errors import ConfigError
from .task import IGNORED_LABEL

# The gap of i slots has probability proportional to i ** (POWER - 1): near repeats are the most
# frequent, as of bigrams in text. 1 would make it uniform.
POWER = 0.01
_MAX_NOISE = 1 << 22  # numbers held at once while drawing


class MQAR:
    """Draws rows of the task; stateless."""

    def generate(
        self, n_sequences: int, config: RecallConfig, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        _check(config)
        n_pairs, n_keys = config.n_pairs, config.vocab_size // 2
        keys = 1 + _distinct(torch.ones(n_keys - 1), n_sequences, n_pairs, generator)  # [N, P]
        values = n_keys + _distinct(
            torch.ones(config.vocab_size - n_keys), n_sequences, n_pairs, generator
        )
        n_slots = config.seq_len // 2 - n_pairs
        gaps = torch.arange(1, n_slots + 1).float()
        slots = _distinct(gaps ** (POWER - 1), n_sequences, n_pairs, generator)
        queries = 2 * n_pairs + 2 * slots  # every second position after the pairs

        shape = (n_sequences, config.seq_len)
        inputs = torch.randint(config.vocab_size, shape, generator=generator)
        inputs[:, 0 : 2 * n_pairs : 2] = keys
        inputs[:, 1 : 2 * n_pairs : 2] = values
        inputs.scatter_(1, queries, keys)
        labels = torch.full(shape, IGNORED_LABEL).scatter_(1, queries, values)
        return inputs, labels

    def chance_level(self, config: RecallConfig) -> float:
        """1 / (V / 2). Remembering which values were stated, but not whose, gives 1 / N."""
        return 1 / (config.vocab_size - config.vocab_size // 2)


def _distinct(weights: Tensor, n_rows: int, n_drawn: int, generator: torch.Generator) -> Tensor:
    """Indices drawn one after another by weight, none twice in a row: [n_rows, n_drawn].

    The largest of log weight + Gumbel noise, in order, are such a draw.
    """
    n_at_once = max(1, _MAX_NOISE // len(weights))
    drawn = []
    for first in range(0, n_rows, n_at_once):
        shape = (min(n_at_once, n_rows - first), len(weights))
        gumbel = -torch.rand(shape, generator=generator).log().neg().log()
        drawn.append((weights.log() + gumbel).topk(n_drawn, dim=1).indices)
    return torch.cat(drawn)


def _check(config: RecallConfig) -> None:
    if config.seq_len < 4 * config.n_pairs:
        raise ConfigError(
            f"recall.seq_len={config.seq_len} is too short for recall.n_pairs={config.n_pairs} and "
            f"their queries; it takes {4 * config.n_pairs}."
        )
    if config.seq_len % 2:
        raise ConfigError(f"recall.seq_len={config.seq_len} must be even.")
    if config.vocab_size // 2 - 1 < config.n_pairs:
        raise ConfigError(
            f"recall.vocab_size={config.vocab_size} has {config.vocab_size // 2 - 1} keys, too few "
            f"for recall.n_pairs={config.n_pairs}; it takes {2 * config.n_pairs + 2}."
        )
