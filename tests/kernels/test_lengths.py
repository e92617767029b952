"""Which sequences share a batch: the cheapest split, and each of them once."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from linearch.kernels.lengths import Batch, batches_of_similar_length

UNEVEN = (1, 2000, 5, 63, 64, 65, 0, 640, 300, 300)
CHUNK = 64


def tokens(batches: tuple[Batch, ...]) -> int:
    return sum(batch.tokens for batch in batches)


@pytest.mark.parametrize("call_tokens", [0, 100, 1000, 10**6])
def test_each_sequence_is_in_one_batch_that_is_as_wide_as_its_longest(call_tokens: int) -> None:
    batches = batches_of_similar_length(UNEVEN, call_tokens)
    assert sorted(n for batch in batches for n in batch.sequences) == list(range(len(UNEVEN)))
    for batch in batches:
        assert batch.longest == max(UNEVEN[n] for n in batch.sequences)
        assert list(batch.sequences) == sorted(batch.sequences)


@pytest.mark.parametrize("call_tokens", [0, 50, 200, 1000, 3000])
def test_no_other_split_of_the_lengths_costs_less(call_tokens: int) -> None:
    lengths = sorted(CHUNK * chunks for chunks in (1, 2, 2, 3, 5, 8, 16, 20, 40))

    def cost(cuts: tuple[int, ...]) -> int:
        parts = [lengths[start:end] for start, end in pairwise((0, *cuts, len(lengths)))]
        return sum(call_tokens + len(part) * part[-1] for part in parts)

    every = [c for n in range(len(lengths)) for c in combinations(range(1, len(lengths)), n)]
    batches = batches_of_similar_length(tuple(lengths), call_tokens)
    assert call_tokens * len(batches) + tokens(batches) == min(map(cost, every))


def test_where_calls_are_free_padding_is_a_quarter_or_a_chunk_at_most() -> None:
    for lengths in (UNEVEN, tuple(range(1, 3000, 7)), (64, 65) * 50):
        real = sum(lengths)
        assert tokens(batches_of_similar_length(lengths, 0)) <= 1.25 * real + CHUNK * len(lengths)


def test_where_a_call_is_dear_all_share_one() -> None:
    (batch,) = batches_of_similar_length(UNEVEN, 10**6)
    assert batch == Batch(sequences=tuple(range(len(UNEVEN))), longest=2000)


def test_sequences_without_tokens_are_rows_of_one() -> None:
    (batch,) = batches_of_similar_length((0, 0), 10)
    assert (batch.longest, batch.tokens) == (1, 2)
