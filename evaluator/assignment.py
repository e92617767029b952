"""What one trial trains on and is scored by: sizes, recipe, data and held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from ..config import RunConfig
from .batches import write_windows
from .corpus import Corpus, shard_windows, validation_windows
from .recipe import Recipe, make_recipe
from .results import TrialSpec
from .scoring import HeldOut
from .tasks import IGNORED_LABEL, Split, Task, draw_rows, task_named

CORPUS_TASK = "corpus"
_TEST_SEED = 1 << 32  # no training seed's
_LONGER_TOKENS = 1 << 19  # of one length, so that their hidden states fit into memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """`model` are BackboneConfig's fields; `data` is the only file that the child gets to read.

    It stays empty until `serve(first step)` fills it with what the steps from there on train on:
    nothing can be trained before the clock starts. `longer` are rows of a task at other lengths
    than it is trained at, by length; they are scored apart, as is the `shard` of the corpus.
    """

    model: dict[str, Any]
    recipe: Recipe
    data: Path
    data_kind: str
    serve: Callable[[int], None]
    held_out: HeldOut
    expected_params: int
    longer: Mapping[int, HeldOut] = field(default_factory=dict)
    shard: HeldOut | None = None


def corpus_assignment(
    spec: TrialSpec, config: RunConfig, corpus: Corpus, folder: Path
) -> Assignment:
    """Language modelling on the training part, scored on windows of validation, and of the test
    shard where the configuration opens it.

    `folder` gets the windows of the training tokens that this trial's steps see. Tokens that stand
    for no text are not scored.
    """
    length, n_shard = config.data.seq_len, config.data.test_windows
    token_type = corpus.vocabulary.token_type
    recipe = make_recipe(
        config.training,
        tokens=spec.tokens,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        batch_size=config.training.batch_size,
        seq_len=config.data.seq_len,
    )
    data = _empty(folder / "windows")
    return Assignment(
        model=model_sizes(config, spec.pattern, spec.mlp_width),
        recipe=recipe,
        data=data,
        data_kind=token_type,
        serve=lambda first: write_windows(corpus.train.path, token_type, recipe, first, data),
        held_out=_text(corpus, validation_windows(corpus, length, config.data.val_windows)),
        expected_params=config.model.param_budget,
        shard=_text(corpus, shard_windows(corpus, length, n_shard)) if n_shard else None,
    )


def task_assignment(spec: TrialSpec, config: RunConfig, folder: Path) -> Assignment:
    """A synthetic task at its own sizes; `folder` gets the training rows.

    Unless the task has only so many rows, as many as are trained on, each seen once; the same for
    every candidate. The model gets the task's vocabulary. Raises ConfigError for a task or sizes
    that there are not.
    """
    recall = config.recall
    task = task_named(spec.task, recall.sizes)
    recipe = make_recipe(
        config.training,
        tokens=spec.tokens,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        batch_size=recall.batch_size,
        seq_len=task.seq_len,
    )
    n_rows = recipe.total_steps * recall.batch_size
    if task.train_rows is not None:
        n_rows = min(n_rows, task.train_rows)
    rows = _draw(spec.task, task, n_rows, spec.seed, "train")
    longer = {}
    for length in task.test_lengths:
        n_test = max(1, min(recall.test_sequences, _LONGER_TOKENS // length))
        at_length = task.at_length(length)
        longer[length] = _draw(spec.task, at_length, n_test, _TEST_SEED, "test")
    model = model_sizes(config, spec.pattern, spec.mlp_width)
    other_tokens = task.vocab_size - config.model.vocab_size
    data = _empty(folder / spec.task)
    return Assignment(
        model={**model, "vocab_size": task.vocab_size},
        recipe=recipe,
        data=data,
        data_kind="rows",
        serve=lambda first: _write_rows(data, rows),
        held_out=_draw(spec.task, task, recall.test_sequences, _TEST_SEED, "test"),
        expected_params=config.model.param_budget + other_tokens * config.model.d_model,
        longer=longer,
    )


def model_sizes(config: RunConfig, pattern: str, mlp_width: int) -> dict[str, Any]:
    """BackboneConfig's fields as plain data."""
    model = config.model
    return {
        "vocab_size": model.vocab_size,
        "d_model": model.d_model,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "mlp_width": mlp_width,
        "pattern": pattern,
        "window": model.window,
    }


def _text(corpus: Corpus, windows: NDArray[Any]) -> HeldOut:
    """windows: [N, T + 1] tokens."""
    tokens = torch.from_numpy(windows.astype(np.int64))
    labels = tokens[:, 1:]
    n_bytes = torch.from_numpy(corpus.vocabulary.lengths())[labels]  # of each label
    return HeldOut(
        inputs=tokens[:, :-1],
        labels=labels.where(n_bytes > 0, IGNORED_LABEL),
        n_bytes=float(n_bytes.sum()),
    )


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _draw(name: str, task: Task, n_rows: int, seed: int, split: Split) -> HeldOut:
    inputs, labels = draw_rows(name, task, n_rows, np.random.default_rng(seed), split)
    return HeldOut(inputs=torch.from_numpy(inputs).long(), labels=torch.from_numpy(labels).long())


def _write_rows(path: Path, rows: HeldOut) -> None:
    """In place, since a child holds the file open already."""
    tensors = {"inputs": rows.inputs.int(), "labels": rows.labels.int()}
    path.write_bytes(safetensors.torch.save(tensors))
