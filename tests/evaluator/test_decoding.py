"""The time of a decoded token is the supervisor's, of single tokens at a row's end."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.evaluator.decoding import decode_time_s


class _Stream:
    """Takes 10 ms a piece, and a second for one of several tokens."""

    def __init__(self) -> None:
        self.fed: list[int] = []

    def start(self) -> None:
        self.fed.clear()

    def feed(self, tokens: Tensor) -> Tensor:
        self.fed.append(tokens.shape[1])
        time.sleep(0.01 if tokens.shape[1] == 1 else 1.0)
        return torch.zeros(len(tokens), 4)


@pytest.mark.parametrize(("length", "fed"), [(2, [1, 1]), (40, [8] + 32 * [1])])
def test_tokens_are_fed_one_by_one_and_their_median_is_told(length: int, fed: list[int]) -> None:
    stream: Any = _Stream()
    assert 0.01 <= decode_time_s(stream, torch.zeros(length, dtype=torch.int64)) < 0.5
    assert stream.fed == fed
