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
from ..errors import ConfigError
from .batches import write_windows
from .corpus import Corpus, shard_windows, validation_windows
from .recipe import Recipe, make_recipe
from .results import TrialSpec
from .scoring import HeldOut
from .tasks import IGNORED_LABEL, Split, Task, task_named

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
    """Language modelling on the training bytes, scored on windows of the validation bytes, and of
    the test shard where the configuration opens it.

    `folder` gets the windows of the training bytes that this trial's steps see.
    """
    length, n_shard = config.data.seq_len, config.data.test_windows
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
        data_kind="uint8",
        serve=lambda first: write_windows(corpus.train_path, "uint8", recipe, first, data),
        held_out=_next_bytes(validation_windows(corpus, length, config.data.val_windows)),
        expected_params=config.model.param_budget,
        shard=_next_bytes(shard_windows(corpus, length, n_shard)) if n_shard else None,
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


def _next_bytes(windows: NDArray[np.uint8]) -> HeldOut:
    """windows: [N, T + 1]."""
    tokens = torch.from_numpy(windows).long()
    return HeldOut(inputs=tokens[:, :-1], labels=tokens[:, 1:])


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _draw(name: str, task: Task, n_rows: int, seed: int, split: Split) -> HeldOut:
    """Rows of a task; raises ConfigError for a task that breaks its own promises."""
    inputs, labels = task.generate(n_rows, np.random.default_rng(seed), split)
    shape = (n_rows, task.seq_len)
    if inputs.shape != shape or labels.shape != shape:
        raise ConfigError(
            f"Task {name!r} drew inputs {inputs.shape} and labels {labels.shape}, not {shape}; "
            "correct its generate()."
        )
    largest = int(max(inputs.max(), labels.max()))
    if inputs.min() < 0 or labels.min() < IGNORED_LABEL or largest >= task.vocab_size:
        raise ConfigError(
            f"Task {name!r} drew ids that a model of its vocab_size={task.vocab_size} does not "
            f"have, up to {largest}; correct its vocab_size or its generate()."
        )
    return HeldOut(inputs=torch.from_numpy(inputs).long(), labels=torch.from_numpy(labels).long())


def _write_rows(path: Path, rows: HeldOut) -> None:
    """In place, since a child holds the file open already."""
    tensors = {"inputs": rows.inputs.int(), "labels": rows.labels.int()}
    path.write_bytes(safetensors.torch.save(tensors))
