"""The rows of multi-query associative recall, and that a lookup and nothing less solves them."""

from __future__ import annotations

import numpy as np
import pytest

from linearch.errors import ConfigError
from linearch.evaluator.tasks import IGNORED_LABEL, TASKS
from linearch.evaluator.tasks.mqar import MQAR

mqar = TASKS["mqar"]


def test_a_row_states_pairs_and_asks_each_key_once(draw):
    inputs, labels = draw(mqar)

    keys, values = inputs[:, 0:16:2], inputs[:, 1:16:2]
    assert inputs.shape == labels.shape == (200, 64)
    assert keys.min() >= 1
    assert keys.max() < 32
    assert values.min() >= 32
    assert values.max() < 64
    for row in range(200):
        assert len(set(keys[row])) == len(set(values[row])) == 8
        asked = (labels[row] != IGNORED_LABEL).nonzero()[0]
        assert sorted(inputs[row, asked]) == sorted(keys[row])
        assert asked.min() >= 16
        assert set(asked % 2) == {0}


def test_looking_keys_up_answers_everything(draw, share_right):
    inputs, labels = draw(mqar)
    predictions = np.zeros_like(labels)
    for row, stated in enumerate(inputs[:, :16]):
        value_of = dict(zip(stated[::2], stated[1::2], strict=True))
        predictions[row] = [value_of.get(token, 0) for token in inputs[row]]

    assert share_right(predictions, labels) == 1.0


def test_remembering_the_values_alone_is_one_in_n(draw, share_right):
    inputs, labels = draw(mqar, 2000)

    assert share_right(inputs[:, 1:2].repeat(64, axis=1), labels) == pytest.approx(1 / 8)


def test_repeating_the_last_token_never_answers(draw, share_right):
    inputs, labels = draw(mqar)

    assert share_right(inputs, labels) == 0.0


def test_near_queries_are_the_most_frequent(draw):
    _, labels = draw(MQAR(n_pairs=1), 20_000)

    counts = (labels != IGNORED_LABEL).sum(axis=0)[2::2]  # 31 slots
    expected = np.arange(1, 32) ** (0.01 - 1)
    expected = 20_000 * expected / expected.sum()

    assert np.allclose(counts, expected, atol=5 * expected.max() ** 0.5)
    assert counts[0] > 5 * counts[30]


def test_keys_and_values_are_all_equally_likely(draw):
    inputs, _ = draw(MQAR(vocab_size=16, seq_len=16, n_pairs=3), 20_000)

    counts = np.bincount(inputs[:, :6].ravel(), minlength=16)
    assert counts[0] == 0
    assert np.allclose(counts[1:8], 60_000 / 7, rtol=0.05)
    assert np.allclose(counts[8:], 60_000 / 8, rtol=0.05)


def test_the_tightest_row_still_fits(draw):
    _, labels = draw(MQAR(vocab_size=10, seq_len=16, n_pairs=4))

    assert ((labels != IGNORED_LABEL).sum(axis=1) == 4).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"seq_len": 30}, "it takes 32"),
        ({"seq_len": 65}, "must be even"),
        ({"vocab_size": 16}, "it takes 18"),
        ({"n_pairs": 0}, "at least 1"),
    ],
)
def test_impossible_sizes_are_refused_with_what_it_takes(sizes, message):
    with pytest.raises(ConfigError, match=message):
        MQAR(**sizes)
