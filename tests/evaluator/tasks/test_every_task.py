"""What every task promises: shapes, ids, the same rows for the same seed, its chance level."""

from __future__ import annotations

import numpy as np
import pytest

from linearch.evaluator.tasks import IGNORED_LABEL, SUITES, TASKS

# Strings of these can be so short that there are only a few.
SHORT_STRINGS = {"modular", "modular_brackets", "modular-40", "modular_brackets-40", "parity-40"}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", TASKS)
def test_rows_are_of_the_tasks_sizes(name, split, draw):
    task = TASKS[name]
    inputs, labels = draw(task, 8, split=split)

    assert inputs.shape == labels.shape == (8, task.seq_len)
    assert inputs.dtype == labels.dtype == np.int64
    assert inputs.min() >= 0
    assert max(inputs.max(), labels.max()) < task.vocab_size
    is_asked = labels != IGNORED_LABEL
    assert is_asked.any(axis=1).all() or name.startswith("regbench")
    assert labels[is_asked].min() >= 0


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_alone_decides_the_rows(name, draw):
    first, again, other = (draw(TASKS[name], 4, seed=seed) for seed in (3, 3, 4))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SUITES["slice"])
def test_a_guess_among_the_possible_answers_is_right_at_the_chance_level(name, draw, share_right):
    task = TASKS[name]
    _, labels = draw(task, 3000)
    answers = np.unique(labels[labels != IGNORED_LABEL])
    guesses = np.random.default_rng(1).choice(answers, size=labels.shape)

    assert task.chance_level == pytest.approx(1 / len(answers))
    n_asked = (labels != IGNORED_LABEL).sum()
    sd = (task.chance_level / n_asked) ** 0.5
    assert share_right(guesses, labels) == pytest.approx(task.chance_level, abs=5 * sd)


@pytest.mark.parametrize("name", sorted(set(SUITES["slice"]) - SHORT_STRINGS))
def test_no_test_row_is_trained_on(name, draw):
    trained, _ = draw(TASKS[name], 3000, split="train")
    tested, _ = draw(TASKS[name], 500, seed=1 << 32)

    rows = {row.tobytes() for row in trained}
    assert not any(row.tobytes() in rows for row in tested)


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].test_lengths])
def test_longer_rows_are_of_their_length_and_the_same_ids(name, draw):
    task = TASKS[name]
    for length in task.test_lengths:
        at_length = task.at_length(length)
        inputs, labels = draw(at_length, 4)
        assert inputs.shape == labels.shape == (4, length)
        assert (at_length.vocab_size, at_length.test_lengths) == (task.vocab_size, ())
        assert (labels != IGNORED_LABEL).any(axis=1).all()


def test_a_slice_is_no_longer_than_a_published_setting():
    for name in SUITES["slice"]:
        published = [TASKS[full] for full in SUITES["full"] if full.startswith(f"{name}-")]
        if name in {"s3", "z6"}:  # stand for larger groups
            published = [TASKS["s5-20"], TASKS["z60-20"]]
            assert TASKS[name].vocab_size < min(task.vocab_size for task in published)
        else:
            assert TASKS[name].seq_len <= max(task.seq_len for task in published)
