"""What one trial trains on and is scored by: sizes, recipe, data and held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..config import RunConfig
from .batches import write_windows
from .corpus import Corpus, validation_windows
from .recipe import Recipe, make_recipe
from .results import TrialSpec
from .scoring import HeldOut
from .tasks import TASKS

CORPUS_TASK = "corpus"
_TEST_SEED = 1 << 32  # no training seed's


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """`model` are BackboneConfig's fields; `data` is the only file that the child gets to read.

    It stays empty until `serve(first step)` fills it with what the steps from there on train on:
    nothing can be trained before the clock starts.
    """

    model: dict[str, Any]
    recipe: Recipe
    data: Path
    data_kind: str
    serve: Callable[[int], None]
    held_out: HeldOut
    expected_params: int


def corpus_assignment(
    spec: TrialSpec, config: RunConfig, corpus: Corpus, folder: Path
) -> Assignment:
    """Language modelling on the training bytes, scored on windows of the validation bytes.

    `folder` gets the windows of the training bytes that this trial's steps see.
    """
    windows = validation_windows(corpus, config.data.seq_len, config.data.val_windows)
    held_out = torch.from_numpy(windows).long()  # [N, T + 1]
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
        held_out=HeldOut(inputs=held_out[:, :-1], labels=held_out[:, 1:]),
        expected_params=config.model.param_budget,
    )


def task_assignment(spec: TrialSpec, config: RunConfig, folder: Path) -> Assignment:
    """A synthetic task of `TASKS` at the sizes of `config.recall`; `folder` gets the training rows.

    As many rows as are trained on, each seen once; the same for every candidate and seed alike.
    """
    recall = config.recall
    recipe = make_recipe(
        config.training,
        tokens=spec.tokens,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        batch_size=recall.batch_size,
        seq_len=recall.seq_len,
    )
    task = TASKS[spec.task]
    n_rows = recipe.total_steps * recall.batch_size
    rows = task.generate(n_rows, recall, torch.Generator().manual_seed(spec.seed))
    test = task.generate(recall.test_sequences, recall, torch.Generator().manual_seed(_TEST_SEED))
    model = model_sizes(config, spec.pattern, spec.mlp_width)
    other_tokens = recall.vocab_size - config.model.vocab_size
    data = _empty(folder / spec.task)
    return Assignment(
        model={**model, "vocab_size": recall.vocab_size},
        recipe=recipe,
        data=data,
        data_kind="rows",
        serve=lambda first: _write_rows(data, *rows),
        held_out=HeldOut(inputs=test[0], labels=test[1]),
        expected_params=config.model.param_budget + other_tokens * config.model.d_model,
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


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _write_rows(path: Path, inputs: Tensor, labels: Tensor) -> None:
    """In place, since a child holds the file open already."""
    rows = {"inputs": inputs.int(), "labels": labels.int()}
    path.write_bytes(safetensors.torch.save(rows))
