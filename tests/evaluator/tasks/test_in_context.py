"""Tasks whose rule is in the row: induction heads, linear regression, unknown languages."""

from __future__ import annotations

import random

import numpy as np
import pytest

from linearch.errors import ConfigError
from linearch.evaluator.tasks import IGNORED_LABEL, TASKS
from linearch.evaluator.tasks.induction import Induction
from linearch.evaluator.tasks.regbench import RegBench
from linearch.evaluator.tasks.regression import Regression


@pytest.mark.parametrize("length", [64, 256, 4096])
def test_looking_after_the_special_token_solves_induction(length, draw):
    inputs, labels = draw(Induction().at_length(length), 50)
    for tokens, answers in zip(inputs, labels, strict=True):
        first, last = (tokens == 15).nonzero()[0]
        assert last == length - 1
        assert answers[last] == tokens[first + 1]
        assert (answers[:-1] == IGNORED_LABEL).all()


def test_a_window_solves_only_the_share_of_induction_that_it_sees(draw, share_right):
    inputs, labels = draw(Induction(), 4000)
    predictions = np.zeros_like(labels)
    for row, tokens in enumerate(inputs):
        seen = (tokens[-33:-1] == 15).nonzero()[0]
        predictions[row, -1] = tokens[-33:][seen[0] + 1] if len(seen) else tokens[-2]
    in_window = 31 / 62
    assert share_right(predictions, labels) == pytest.approx(
        in_window + (1 - in_window) / 15, abs=0.04
    )


def test_the_special_token_stands_anywhere(draw):
    inputs, _ = draw(Induction(seq_len=8, test_lengths=()), 6000)
    places = np.bincount((inputs[:, :-1] == 15).argmax(axis=1), minlength=7)
    assert np.allclose(places[:6], 1000, rtol=0.15)
    assert places[6] == 0, "something must follow"


def _fit_and_say(task: Regression, inputs: np.ndarray, ridge: float) -> np.ndarray:
    """Bins of what ridge regression on all earlier points expects, [N, T]."""
    points = inputs.reshape(len(inputs), -1, task.n_dims + 1)
    x = task.levels()[points[:, :, :-1]]  # [N, points, dims]
    middles = (np.arange(task.n_levels) + 0.5) / task.n_levels
    y = np.quantile(np.random.default_rng(0).standard_normal(100_000), middles)[
        points[:, :, -1] - task.n_levels
    ]
    said = np.zeros(points.shape, dtype=np.int64)
    for i in range(points.shape[1]):
        past = x[:, :i]
        gram = past.transpose(0, 2, 1) @ past + ridge * np.eye(task.n_dims)
        w = np.linalg.solve(gram, np.einsum("npd,np->nd", past, y[:, :i])[:, :, None])[:, :, 0]
        said[:, i, -2] = task.n_levels + task.bins(np.einsum("nd,nd->n", w, x[:, i]))
    return said.reshape(inputs.shape)


def test_least_squares_comes_near_the_bin_and_knowing_no_w_does_not(draw):
    task = TASKS["regression"]
    inputs, labels = draw(task, 1000)
    late = (labels != IGNORED_LABEL) & (np.arange(64) >= 40)  # ten points are known
    fitted = _fit_and_say(task, inputs, ridge=0.03)
    blind = _fit_and_say(task, inputs, ridge=1e9)  # w = 0

    error = np.abs(fitted - labels)[late]
    assert (error == 0).mean() > 0.5
    assert (error <= 1).mean() > 0.95
    assert (blind == labels)[late].mean() < 0.15


def test_bins_and_levels_are_equally_likely_and_of_unit_variance(draw):
    task = Regression(seq_len=40, n_dims=1, n_levels=8)
    assert np.mean(task.levels() ** 2) == pytest.approx(1.0)
    shares = np.bincount(task.bins(np.random.default_rng(0).standard_normal(80_000))) / 80_000
    assert np.allclose(shares, 1 / 8, atol=0.005)


def test_one_row_has_one_w(draw):
    task = Regression(n_dims=1, seq_len=40, n_levels=64)
    inputs, _ = draw(task, 200)
    x, y = inputs[:, ::2], inputs[:, 1::2] - 64
    for row in range(200):
        order = np.argsort(x[row], kind="stable")
        slopes = np.sign(np.diff(y[row][order]))
        assert (slopes >= 0).all() or (slopes <= 0).all()


def _strings(tokens: np.ndarray, separator: int) -> list[list[tuple[int, int]]]:
    """A row's strings, as positions and symbols."""
    strings: list[list[tuple[int, int]]] = [[]]
    for t, token in enumerate(tokens.tolist()):
        if token == separator:
            strings.append([])
        elif token < separator:
            strings[-1].append((t, token))
    return strings


def test_the_automaton_of_a_row_allows_it_and_answers_it():
    task = TASKS["regbench"]
    n_asked = 0
    for seed in range(60):
        inputs, labels = task.generate(1, np.random.default_rng(seed), "test")
        _, n_allowed = task.draw(1, np.random.default_rng(seed))
        first = random.Random(int(np.random.default_rng(seed).integers(1 << 62)))
        automaton = task._automaton(first)
        for string in _strings(inputs[0], 18):
            state = 0
            for t, symbol in string:
                edges = dict(automaton[state])
                if t > 0:
                    assert n_allowed[0, t - 1] == len(edges)
                    only = symbol if len(edges) == 1 else IGNORED_LABEL
                    assert labels[0, t - 1] == only
                    n_asked += len(edges) == 1
                state = edges[symbol]  # KeyError: not allowed
    assert n_asked > 500


def test_an_automaton_is_as_published():
    task = TASKS["regbench-950"]
    draw = random.Random(0)
    automata = [task._automaton(draw) for _ in range(500)]
    assert {len(automaton) for automaton in automata} == set(range(4, 13))
    for automaton in automata:
        for state, edges in enumerate(automaton):
            symbols, targets = zip(*edges, strict=True)
            assert len(set(symbols)) == len(set(targets)) == len(edges)
            assert state not in targets
            assert 1 <= len(edges) <= 3
    assert {len(edges) for automaton in automata for edges in automaton} == {1, 2, 3}


def test_published_rows_hold_10_to_19_strings_of_1_to_49_symbols(draw):
    inputs, labels = draw(TASKS["regbench-950"], 100, split="train")
    rows = [_strings(row, 18) for row in inputs]
    assert {len(strings) for strings in rows} == set(range(10, 20))
    lengths = {len(string) for strings in rows for string in strings}
    assert lengths == set(range(1, 50))
    asked = labels[labels != IGNORED_LABEL]
    assert asked.max() < 18, "neither separators nor padding are learned"
    follows = np.roll(inputs, -1, axis=1)
    assert (follows < 18)[:, :-1].sum() == len(asked)


def test_knowing_longer_contexts_answers_more(draw, share_right):
    inputs, labels = draw(TASKS["regbench"], 300)
    shares = []
    for order in (0, 1):  # tokens that the next one is told by
        predictions = np.zeros_like(labels)
        for row, tokens in enumerate(inputs.tolist()):
            counts: dict[tuple[int, ...], dict[int, int]] = {}
            for t in range(len(tokens) - 1):
                context = tuple(tokens[max(0, t + 1 - order) : t + 1]) if order else ()
                seen = counts.setdefault(context, {})
                predictions[row, t] = max(seen, key=seen.__getitem__) if seen else 0
                if tokens[t + 1] < 18:
                    seen[tokens[t + 1]] = seen.get(tokens[t + 1], 0) + 1
        shares.append(share_right(predictions, labels))
    assert shares[0] < 0.55 < 0.7 < shares[1] < 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Induction(seq_len=2), "it takes 3"),
        (lambda: Regression(seq_len=63), "multiple of n_dims"),
        (lambda: RegBench(vocab_size=5), "at least 6"),
        (lambda: RegBench(most_states=3), "at least 4"),
        (lambda: RegBench(fewest_strings=30), "must lie in"),
    ],
)
def test_impossible_sizes_are_refused_with_what_it_takes(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
