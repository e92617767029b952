"""Tasks of a state: definitions against plain loops, and what does and does not keep the state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from linearch.evaluator.tasks import IGNORED_LABEL, TASKS
from linearch.evaluator.tasks.modular import Modular
from linearch.evaluator.tasks.modular_brackets import ModularBrackets
from linearch.evaluator.tasks.parity import Parity
from linearch.evaluator.tasks.words import Words, product_table

GROUPS = {"A5": 60, "A4xZ5": 60, "Z60": 60, "S5": 120, "S3": 6, "Z6": 6}


def test_parity_counts_the_ones_before(draw):
    for inputs, labels in zip(*draw(TASKS["parity"]), strict=True):
        n_ones = 0
        for token, label in zip(inputs, labels, strict=True):
            n_ones += token == 2
            assert label == (IGNORED_LABEL if token == 0 else 1 + n_ones % 2)


def test_published_parity_asks_once_for_strings_of_all_lengths(draw):
    task = TASKS["parity-40"]
    inputs, labels = draw(task, 4000, split="train")

    assert ((labels != IGNORED_LABEL).sum(axis=1) == 1).all()
    assert (labels.max(axis=1) == 1 + (inputs == 2).sum(axis=1) % 2).all()
    n_tokens = 1 + (inputs > 0).sum(axis=1)  # with the answer
    assert set(n_tokens) == set(range(3, 41))
    longer = 1 + (draw(task.at_length(256), 4000)[0] > 0).sum(axis=1)
    assert set(longer) == set(range(40, 257))


def _recurrence(inputs: np.ndarray, keep: tuple[float, ...], add: tuple[float, ...]) -> np.ndarray:
    """h_t = keep[x_t] h_{t-1} + add[x_t] from h_{-1} = 1: [N, T]."""
    h, states = np.ones(len(inputs)), []
    for tokens in inputs.T:
        h = np.take(keep, tokens) * h + np.take(add, tokens)
        states.append(h)
    return np.stack(states, axis=1)


def _best_threshold(states: np.ndarray, labels: np.ndarray) -> float:
    """The share right of the best sign and threshold on a scalar."""
    is_asked = labels != IGNORED_LABEL
    is_odd = labels[is_asked][np.argsort(states[is_asked], kind="stable")] == 2
    right = np.concatenate([[0], np.cumsum(np.where(is_odd, -1, 1))]) + is_odd.sum()
    return max(right.max(), len(is_odd) - right.min()) / len(is_odd)


def test_an_eigenvalue_of_minus_one_solves_parity_at_any_length(draw):
    for length in (40, 256, 1000):
        inputs, labels = draw(Parity().at_length(length), 50)
        states = _recurrence(inputs, keep=(1, 1, -1), add=(0, 0, 0))
        assert _best_threshold(states, labels) == 1.0


def test_no_eigenvalue_in_zero_to_one_solves_parity(draw):
    inputs, labels = draw(Parity().at_length(256), 50)
    keeps, adds = (0, 0.3, 0.9, 1), (-1, 0, 1)
    best = max(
        _best_threshold(_recurrence(inputs, keep=(1, *keep), add=(0, *add)), labels)
        for keep in itertools.product(keeps, repeat=2)
        for add in itertools.product(adds, repeat=2)
    )
    assert best < 0.56


def _tokens_to_text(tokens: np.ndarray, words: str) -> str:
    return "".join(words[token] for token in tokens)


def test_modular_arithmetic_is_pythons(draw):
    words = " +-*=01234"  # ids from 1; 5 is the number 0
    for inputs, labels in zip(*draw(Modular(), 300), strict=True):
        text = _tokens_to_text(inputs, words).rstrip()
        for t in (labels != IGNORED_LABEL).nonzero()[0]:
            assert labels[t] == 5 + eval(text[: t + 1].rstrip("=")) % 5
        assert labels[len(text) - 1] != IGNORED_LABEL
        assert text[-1] == "="


def test_published_modular_arithmetic_asks_once_for_strings_of_all_odd_lengths(draw):
    task = TASKS["modular-40"]
    inputs, labels = draw(task, 4000)

    assert ((labels != IGNORED_LABEL).sum(axis=1) == 1).all()
    assert set(1 + (inputs > 0).sum(axis=1)) == set(range(3, 41, 2))
    assert set(1 + (draw(task.at_length(256), 4000)[0] > 0).sum(axis=1)) == set(range(39, 257, 2))


def test_brackets_are_pythons(draw):
    words = "01234+-*()= "
    lengths = set()
    for inputs, labels in zip(*draw(TASKS["modular_brackets-40"], 500), strict=True):
        text = _tokens_to_text(inputs, words).rstrip()
        assert text.endswith("=")
        assert labels.max() == labels[len(text) - 1] == eval(text[:-1]) % 5
        assert (labels != IGNORED_LABEL).sum() == 1
        lengths.add(len(text) + 2)  # with the answer and one of padding
    assert lengths == set(range(5, 41))


def test_taking_each_number_by_the_sign_before_it_fails_brackets(draw, share_right):
    inputs, labels = draw(TASKS["modular_brackets-40"], 2000)
    predictions = np.zeros_like(labels)
    for row, tokens in enumerate(inputs):
        value, sign = 0, 1
        for token in tokens[tokens < 10]:  # up to "=", brackets included
            value += sign * token if token < 5 else 0
            sign = {5: 1, 6: -1}.get(token, 1 if token < 5 else sign)
        predictions[row] = value % 5
    assert 0.2 < share_right(predictions, labels) < 0.6


def test_the_shortest_brackets_are_of_the_published_forms(draw):
    inputs, _ = draw(ModularBrackets(seq_len=8, test_lengths=()), 500)
    texts = {_tokens_to_text(row, "nnnnn+-*()= ").rstrip() for row in inputs}
    assert texts == {"-n=", "(n)=", "(-n)=", "(n+n)=", "(n-n)="}


def test_an_accumulator_without_precedence_fails_modular_arithmetic(draw, share_right):
    inputs, labels = draw(Modular(is_running=False), 2000)
    predictions = np.zeros_like(labels)
    for row, tokens in enumerate(inputs):
        value = tokens[0] - 5
        for operator, number in itertools.pairwise(tokens[1:]):
            value = {
                1: value + number - 5,
                2: value - number + 5,
                3: value * (number - 5),
            }.get(operator, value)
        predictions[row] = 5 + value % 5
    assert 0.2 < share_right(predictions, labels) < 0.5


@pytest.mark.parametrize(("group", "order"), GROUPS.items())
def test_a_group_is_one(group, order):
    table = product_table(group)
    everything = set(range(order))

    assert table.shape == (order, order)
    assert all(set(row) == everything for row in (*table, *table.T))  # closed, invertible
    a, b, c = np.random.default_rng(0).integers(order, size=(3, 5000))
    assert (table[table[a, b], c] == table[a, table[b, c]]).all()
    assert np.array_equal(table[0], np.arange(order)), "the identity is 0"


def _derived(table: np.ndarray, elements: list[int]) -> list[int]:
    """The subgroup that commutators a b a^-1 b^-1 generate."""
    inverse = table.argmin(axis=1)  # where the product is 0, the identity
    grid = np.ix_(elements, elements)
    swapped = table[np.ix_(inverse[elements], inverse[elements])]
    found = np.unique(table[table[grid], swapped])
    while len(closed := np.unique(table[np.ix_(found, found)])) > len(found):
        found = closed
    return found.tolist()


@pytest.mark.parametrize(
    ("group", "orders"),
    [
        ("Z60", [60, 1]),
        ("Z6", [6, 1]),
        ("S3", [6, 3, 1]),
        ("A4xZ5", [60, 4, 1]),
        ("A5", [60, 60]),  # its own commutators: not solvable
        ("S5", [120, 60, 60]),
    ],
)
def test_which_groups_are_solvable(group, orders):
    table = product_table(group)
    elements = list(range(len(table)))
    series = [len(elements)]
    while len(series) < len(orders):
        elements = _derived(table, elements)
        series.append(len(elements))
    assert series == orders


@pytest.mark.parametrize("group", GROUPS)
def test_a_machine_with_the_groups_state_solves_its_words(group, draw, share_right):
    inputs, labels = draw(Words(group=group).at_length(50))
    table = product_table(group)
    predictions = np.zeros_like(labels)
    for row, tokens in enumerate(inputs):
        predictions[row] = list(itertools.accumulate(tokens, lambda a, b: table[a, b]))
    assert share_right(predictions, labels) == 1.0
    assert (labels[:, :20] == IGNORED_LABEL).all()
    assert (labels[:, 20:] != IGNORED_LABEL).all()


@pytest.mark.parametrize(
    ("group", "at_most"),
    [("Z60", 1.0), ("Z6", 1.0), ("A4xZ5", 0.35), ("A5", 0.12), ("S5", 0.12), ("S3", 0.6)],
)
def test_a_bag_of_symbols_solves_only_words_that_commute(group, at_most, draw, share_right):
    inputs, labels = draw(Words(group=group, seq_len=8), 300)
    table = product_table(group)
    predictions = np.zeros_like(labels)
    for row, t in np.ndindex(*inputs.shape):
        bag = np.sort(inputs[row, : t + 1])  # all that is known of the order
        predictions[row, t] = list(itertools.accumulate(bag, lambda a, b: table[a, b]))[-1]
    late = labels.copy()
    late[:, :4] = IGNORED_LABEL
    share = share_right(predictions, late)
    assert share == 1.0 if at_most == 1.0 else share < at_most
