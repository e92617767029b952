"""What a trial is given: a corpus's bytes per label, or a task's sizes, rows and longer ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from linearch.config import DataConfig, ModelConfig, RecallConfig, RunConfig
from linearch.errors import ConfigError
from linearch.evaluator import Corpus, TrialSpec
from linearch.evaluator.assignment import Assignment, corpus_assignment, task_assignment
from linearch.evaluator.data.parts import Part
from linearch.evaluator.data.vocabulary import Vocabulary
from linearch.evaluator.tasks import TASKS, Rows, Split, Task, next_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Copying(Task):
    """The second half of a row repeats the first."""

    vocab_size: int = 8
    seq_len: int = 10
    largest: int = 8

    @property
    def chance_level(self) -> float:
        return 1 / self.largest

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        half = rng.integers(self.largest, size=(n_rows, self.seq_len // 2))
        inputs = np.concatenate([half, half], axis=1)
        return inputs, next_tokens(inputs)


def assign(folder: Path, task: str, *, seed: int = 0, tokens: int = 640, **recall) -> Assignment:
    config = RunConfig(
        model=ModelConfig(d_model=16, param_budget=10_000),
        recall=RecallConfig(tasks=(task,), batch_size=4, test_sequences=16, **recall),
    )
    return task_assignment(spec(task, tokens=tokens, seed=seed), config, folder)


def spec(task: str, *, tokens: int, seed: int = 0) -> TrialSpec:
    return TrialSpec(
        source="",
        pattern="L",
        mlp_width=8,
        task=task,
        rung=1,
        tokens=tokens,
        seed=seed,
        learning_rate=1e-3,
    )


def served(assignment: Assignment) -> dict[str, torch.Tensor]:
    assert assignment.data.read_bytes() == b"", "nothing before the clock starts"
    assignment.serve(0)
    return safetensors.torch.load(assignment.data.read_bytes())


def test_the_model_gets_the_tasks_vocabulary_and_length(tmp_path):
    assignment = assign(tmp_path, "parity")

    assert assignment.model["vocab_size"] == 3
    assert assignment.recipe.seq_len == 40
    assert assignment.recipe.total_steps == 640 // (4 * 40)
    assert assignment.expected_params == 10_000 - (256 - 3) * 16
    assert served(assignment)["inputs"].shape == (16, 40)


def test_each_row_is_new_unless_the_task_has_only_so_many(tmp_path):
    all_new = served(assign(tmp_path, "parity"))["inputs"]
    few = assign(tmp_path, "parity", sizes={"parity": {"train_rows": 3}})

    assert len(all_new.unique(dim=0)) == 16
    assert served(few)["inputs"].shape == (3, 40)
    assert few.recipe.total_steps == 4


def test_rows_depend_on_the_seed_and_test_rows_do_not(tmp_path):
    trained, tested = [], []
    for seed in (0, 0, 1):
        assignment = assign(tmp_path, "mqar", seed=seed, tokens=2560)
        trained.append(served(assignment)["inputs"])
        tested.append(assignment.held_out.inputs)

    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])
    assert torch.equal(tested[0], tested[2])


def test_longer_rows_are_asked_beyond_all_of_training(tmp_path):
    longer = assign(tmp_path, "parity").longer

    assert list(longer) == [256]
    assert longer[256].inputs.shape == (16, 256)
    assert (longer[256].labels[:, :40] == -100).all()
    assert (longer[256].labels[:, 40:255] > 0).all()


def test_rows_of_a_great_length_are_fewer(tmp_path):
    longer = assign(tmp_path, "induction", sizes={"induction": {"test_lengths": [65_536]}}).longer
    assert longer[65_536].inputs.shape == (8, 65_536)


def test_a_task_without_other_lengths_has_no_longer_rows(tmp_path):
    assert assign(tmp_path, "mqar", tokens=2560).longer == {}


def test_a_task_of_ones_own_is_one_class(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "copying", Copying())
    assignment = assign(tmp_path, "copying")
    inputs, labels = assignment.held_out.inputs, assignment.held_out.labels
    assert torch.equal(inputs[:, :5], inputs[:, 5:])
    assert torch.equal(labels[:, :-1], inputs[:, 1:])


def test_ids_beyond_the_models_vocabulary_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "copying", Copying(largest=9))
    with pytest.raises(ConfigError, match=r"'copying' drew ids .* vocab_size=8 does not .* to 8"):
        assign(tmp_path, "copying")


def test_rows_of_another_length_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "copying", Copying(seq_len=11))
    with pytest.raises(ConfigError, match=r"'copying' drew inputs \(\d+, 10\) .*, not \(\d+, 11\)"):
        assign(tmp_path, "copying")


def test_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no task 'mqr'"):
        assign(tmp_path, "mqr")


def test_less_than_a_batch_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"recall\.train_tokens"):
        assign(tmp_path, "parity", tokens=100)


@pytest.fixture
def coded(tmp_path):
    """A corpus of five ids: a byte, three bytes, four, and two that stand for nothing."""
    texts = (b"a", b"\xe2\x82\xac", b" the", b"", b"")
    drawn = np.random.default_rng(0).integers(5, size=900).astype(np.uint8)
    drawn.tofile(tmp_path / "part")
    part = Part(path=tmp_path / "part", n_tokens=900, n_bytes=900)
    return Corpus(
        name="coded",
        identity="",
        vocabulary=Vocabulary(size=5, texts=texts),
        train=part,
        val=part,
        test=part,
        n_documents=None,
        unigram_bits=1.0,
    )


def test_the_labels_of_a_corpus_stand_for_the_bytes_that_they_decode_to(tmp_path, coded):
    config = RunConfig(data=DataConfig(seq_len=16, val_windows=20))
    assignment = corpus_assignment(spec("corpus", tokens=1024), config, coded, tmp_path)

    labels = assignment.held_out.labels
    scored = labels[labels != -100]
    assert assignment.held_out.n_bytes == len(coded.vocabulary.decode(scored.numpy()))
    assert assignment.held_out.inputs.max() == 4


def test_a_token_that_stands_for_nothing_is_not_scored(tmp_path, coded):
    config = RunConfig(data=DataConfig(seq_len=16, val_windows=20))
    held_out = corpus_assignment(spec("corpus", tokens=1024), config, coded, tmp_path).held_out

    following = held_out.inputs[:, 1:]
    assert torch.equal(held_out.labels[:, :-1] == -100, following >= 3)
