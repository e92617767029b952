"""The rows of multi-query associative recall, and that a lookup and nothing less solves them."""

from __future__ import annotations

import pytest
import torch

from linearch.config import RecallConfig
from linearch.errors import ConfigError
from linearch.evaluator.tasks import IGNORED_LABEL, TASKS, accuracy

CONFIG = RecallConfig(vocab_size=64, seq_len=64, n_pairs=8)
mqar = TASKS["mqar"]


def rows(config: RecallConfig = CONFIG, n: int = 200, seed: int = 0):
    return mqar.generate(n, config, torch.Generator().manual_seed(seed))


def test_a_row_states_pairs_and_asks_each_key_once():
    inputs, labels = rows()

    keys, values = inputs[:, 0:16:2], inputs[:, 1:16:2]
    assert inputs.shape == labels.shape == (200, 64)
    assert keys.min() >= 1
    assert keys.max() < 32
    assert values.min() >= 32
    assert values.max() < 64
    for row in range(200):
        assert len(set(keys[row].tolist())) == len(set(values[row].tolist())) == 8
        asked = (labels[row] != IGNORED_LABEL).nonzero().flatten()
        assert sorted(inputs[row, asked].tolist()) == sorted(keys[row].tolist())
        assert asked.min() >= 16
        assert set((asked % 2).tolist()) == {0}


def test_looking_keys_up_answers_everything():
    inputs, labels = rows()
    predictions = torch.zeros_like(labels)
    for row in range(len(inputs)):
        stated = inputs[row, :16].tolist()
        value_of = dict(zip(stated[::2], stated[1::2], strict=True))
        for t in range(16, 64):
            predictions[row, t] = value_of.get(int(inputs[row, t]), 0)

    assert accuracy(predictions, labels) == 1.0


def test_guessing_any_value_reaches_the_chance_level():
    _, labels = rows(n=4000)
    guess = torch.randint(32, 64, labels.shape, generator=torch.Generator().manual_seed(1))

    assert mqar.chance_level(CONFIG) == 1 / 32
    assert accuracy(guess, labels) == pytest.approx(1 / 32, rel=0.1)


def test_remembering_the_values_alone_is_one_in_n():
    inputs, labels = rows(n=2000)
    first_value = inputs[:, 1:2].expand_as(labels)

    assert accuracy(first_value, labels) == pytest.approx(1 / 8)


def test_near_queries_are_the_most_frequent():
    config = RecallConfig(vocab_size=64, seq_len=64, n_pairs=1)
    _, labels = rows(config, n=20_000)

    counts = (labels != IGNORED_LABEL).sum(dim=0)[2::2].double()  # 31 slots
    expected = torch.arange(1, 32).double() ** (0.01 - 1)
    expected = 20_000 * expected / expected.sum()

    assert torch.allclose(counts, expected, atol=5 * float(expected.max()) ** 0.5)
    assert counts[0] > 5 * counts[30]


def test_accuracy_is_a_mean_over_rows_of_labelled_positions():
    labels = torch.tensor([[-100, 5, 6, -100], [7, -100, -100, -100]])
    predictions = torch.tensor([[0, 5, 0, 0], [7, 0, 0, 0]])

    assert accuracy(predictions, labels) == 0.75


def test_the_seed_alone_decides_the_rows():
    assert torch.equal(rows(seed=3)[0], rows(seed=3)[0])
    assert not torch.equal(rows(seed=3)[0], rows(seed=4)[0])


def test_the_tightest_row_still_fits():
    config = RecallConfig(vocab_size=10, seq_len=16, n_pairs=4)

    _, labels = rows(config)

    assert (labels != IGNORED_LABEL).sum(dim=1).eq(4).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"seq_len": 30, "n_pairs": 8}, "it takes 32"),
        ({"seq_len": 65}, "must be even"),
        ({"vocab_size": 16, "n_pairs": 8}, "it takes 18"),
    ],
)
def test_impossible_sizes_are_refused_with_what_it_takes(sizes, message):
    config = RecallConfig(**{"vocab_size": 64, "seq_len": 64, "n_pairs": 8, **sizes})

    with pytest.raises(ConfigError, match=message):
        rows(config)
