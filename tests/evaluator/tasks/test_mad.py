"""MAD's tasks: the rows as published, what solves them and what does not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from linearch.errors import ConfigError
from linearch.evaluator.tasks import IGNORED_LABEL, TASKS
from linearch.evaluator.tasks.compression import Compression
from linearch.evaluator.tasks.context_recall import ContextRecall
from linearch.evaluator.tasks.fuzzy_recall import FuzzyRecall
from linearch.evaluator.tasks.memorisation import Memorisation
from linearch.evaluator.tasks.selective_copying import SelectiveCopying


def test_selective_copying_repeats_what_is_not_blank(draw, share_right):
    inputs, labels = draw(TASKS["selective_copying-256"])
    predictions = np.zeros_like(labels)
    for row, tokens in enumerate(inputs):
        (asks,) = (tokens == 15).nonzero()[0]
        assert asks == 256 - 17
        to_copy = tokens[:asks][tokens[:asks] < 14]
        assert len(to_copy) == 16
        assert (tokens[asks + 1 :] == 14).all()
        predictions[row, asks + 1 :] = to_copy
    assert share_right(predictions, labels) == 1.0
    assert (inputs[:, -18] < 14).all(), "the last token to copy stands before the question"


def test_copying_from_fixed_places_fails_it(draw, share_right):
    inputs, labels = draw(TASKS["selective_copying"], 2000)
    n, asks = 8, 64 - 9
    best = 0.0
    for shift in range(asks):  # what a convolution can do: the token `shift` before
        predictions = np.roll(inputs, shift, axis=1)
        best = max(best, share_right(predictions, labels))
    fixed_by_content = (2 * n + 1) / 64  # were there no blanks to skip
    assert best < fixed_by_content < 0.3


def test_compression_asks_for_every_position(draw, share_right):
    inputs, labels = draw(Compression(), 300)

    assert np.array_equal(labels[:, 32:], inputs[:, :31])
    assert (labels[:, :32] == IGNORED_LABEL).all()
    assert (inputs[:, 31:] == np.arange(15, 47)).all()


def test_a_summary_of_eight_symbols_compresses_eight(draw, share_right):
    inputs, labels = draw(Compression(), 2000)
    predictions = np.zeros_like(labels)  # guesses symbol 0 where it does not know
    predictions[:, -8:] = inputs[:, 23:31]
    expected = (8 + 23 / 15) / 31
    assert share_right(predictions, labels) == pytest.approx(expected, abs=0.01)


def test_what_one_row_says_holds_in_all_of_them(draw, share_right):
    trained, answers = draw(Memorisation(), 200, split="train", seed=1)
    inputs, labels = draw(Memorisation(), 200, seed=2)
    learned = np.zeros(256, dtype=np.int64)
    learned[trained[:, ::2]] = answers[:, 1::2]
    predictions = np.roll(learned[inputs], 1, axis=1)

    assert share_right(predictions, labels) == 1.0
    assert len(set(learned[:127])) == 127, "one to one"
    assert set(inputs[:, 1::2].ravel()) == {255}
    assert (inputs != labels).all(), "no row tells its answers"


def _look_up_pairs(tokens: np.ndarray) -> list[int]:
    value_of: dict[int, int] = {}
    said = []
    for key, value in zip(tokens[::2], tokens[1::2], strict=True):
        said += [value_of.get(key, -1), -1]
        value_of.setdefault(key, value)
    return said


@pytest.mark.parametrize("name", ["context_recall", "noisy_recall", "noisy_recall-128"])
def test_looking_pairs_up_solves_context_recall(name, draw, share_right):
    inputs, labels = draw(TASKS[name], 500)
    predictions = np.array([_look_up_pairs(row) for row in inputs])

    assert share_right(predictions, labels) == 1.0
    is_asked = labels != IGNORED_LABEL
    knows = (predictions >= 0) & (inputs < 8)
    assert np.array_equal(is_asked, knows), "asked wherever a key was stated before"
    assert is_asked[:, -2].all()


@pytest.mark.parametrize("name", ["context_recall", "noisy_recall"])
def test_repeating_the_last_value_fails_context_recall(name, draw, share_right):
    inputs, labels = draw(TASKS[name], 2000)
    last_value = np.roll(inputs, 1, axis=1)
    assert share_right(last_value, labels) < 0.3


def test_noise_is_its_share_of_the_pairs(draw):
    inputs, _ = draw(TASKS["noisy_recall-128"], 2000)
    pairs = inputs.reshape(2000, 64, 2)
    is_noise = (pairs >= 16).all(axis=2)

    assert (is_noise == (pairs >= 16).any(axis=2)).all()
    # One pair before the last is never noise, nor is the last.
    assert is_noise.mean() == pytest.approx(0.2 * 62 / 64, rel=0.03)
    assert (pairs[~is_noise][:, 0] < 8).all()
    assert (pairs[~is_noise][:, 1] // 8 == 1).all()


@pytest.mark.parametrize("name", ["context_recall", "noisy_recall", "fuzzy_recall"])
def test_training_asks_for_every_next_token(name, draw):
    inputs, labels = draw(TASKS[name], 50, split="train")
    assert np.array_equal(labels[:, :-1], inputs[:, 1:])
    assert (labels[:, -1] == IGNORED_LABEL).all()


def _say_motifs(tokens: np.ndarray) -> list[int]:
    """Keys are runs of ids 0 .. 6, values of 7 .. 14: each position's next token, if known."""
    value_of: dict[tuple[int, ...], list[int]] = {}
    said: list[int] = []
    key: list[int] = []
    value: list[int] = []
    for token in tokens[tokens < 15].tolist():
        if token < 7:
            if value:
                value_of[tuple(key)] = value
                key, value = [], []
            key.append(token)
        else:
            value.append(token)
        known = value_of.get(tuple(key), [])
        said.append(known[len(value)] if len(value) < len(known) else -1)
    return [-1] * (len(tokens) - len(said)) + said


@pytest.mark.parametrize("name", ["fuzzy_recall", "fuzzy_recall-128"])
def test_looking_motifs_up_solves_fuzzy_recall(name, draw, share_right):
    inputs, labels = draw(TASKS[name], 300)
    predictions = np.array([_say_motifs(row) for row in inputs])

    assert share_right(predictions, labels) == 1.0
    assert (labels != IGNORED_LABEL).any(axis=1).all(), "the last pair was stated before"
    for row in inputs:
        runs = [len(list(run)) for is_key, run in itertools.groupby(row < 7) if is_key]
        assert set(runs) == {3}, "test keys are the longest"


def test_knowing_the_last_token_alone_fails_fuzzy_recall(draw, share_right):
    inputs, labels = draw(TASKS["fuzzy_recall"], 300)
    predictions = np.full_like(labels, -1)
    for row, tokens in enumerate(inputs):
        follower: dict[int, int] = {}
        for t, token in enumerate(tokens):
            predictions[row, t] = follower.get(token, -1)
            if t + 1 < len(tokens):
                follower[token] = tokens[t + 1]
    assert share_right(predictions, labels) < 0.6


def test_training_motifs_have_all_sizes_and_no_token_twice(draw):
    inputs, _ = draw(FuzzyRecall(seq_len=128), 50, split="train")
    for is_value in (False, True):
        sizes = set()
        for row in inputs:
            for (is_run, _), run in itertools.groupby(row, lambda t: (t > 6, t == 15)):
                tokens = list(run)
                if is_run == is_value and 15 not in tokens:
                    sizes.add(len(tokens))
        assert sizes >= {1, 2, 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelectiveCopying(seq_len=17), "it takes 18"),
        (lambda: Compression(seq_len=64), "must be odd"),
        (lambda: Memorisation(seq_len=31), "must be even"),
        (lambda: ContextRecall(n_noise_ids=16), "both be 0"),
        (lambda: ContextRecall(n_noise_ids=15, noise_share=0.2), "it takes 17"),
        (lambda: ContextRecall(noise_share=1.0), "without 1"),
        (lambda: FuzzyRecall(vocab_size=6), "it takes 7"),
        (lambda: FuzzyRecall(seq_len=17), "it takes 18"),
    ],
)
def test_impossible_sizes_are_refused_with_what_it_takes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
