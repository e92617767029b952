"""How long one more token takes, by the supervisor's clock: no one's word is taken for it."""

from __future__ import annotations

import time
from statistics import median

from torch import Tensor

from .hidden_states import ModelStream

_TOKENS = 32


def decode_time_s(stream: ModelStream, row: Tensor) -> float:
    """Seconds a token: the median of the last 32 or fewer of a row [T >= 2], fed one by one.

    Of a batch of one, with what asking the process costs.
    """
    n_before = max(1, len(row) - _TOKENS)
    stream.start()
    stream.feed(row[None, :n_before])
    took_s = []
    for position in range(n_before, len(row)):
        begun = time.perf_counter()
        stream.feed(row[None, position : position + 1])
        took_s.append(time.perf_counter() - begun)
    return median(took_s)
