"""All tasks by name, found by looking into this folder: a module's `TASKS` are its tasks.

A name without a dash is the slice for a search, small enough for a CPU; one with a dash is a
published setting, for verification.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...config import RecallConfig
from ...errors import ConfigError
from .task import IGNORED_LABEL, Rows, Split, Task

Sizes = Mapping[str, Mapping[str, Any]]


def _discover() -> dict[str, Task]:
    found: dict[str, Task] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name == Path(__file__).stem:
            continue
        tasks = getattr(import_module(f".{module.name}", __package__), "TASKS", {})
        if twice := found.keys() & tasks.keys():
            raise ValueError(f"{module.name}.py defines {sorted(twice)}, which another file does")
        found.update(tasks)
    return found


TASKS: Mapping[str, Task] = _discover()
_TRIED_ROWS = 4
SUITES: Mapping[str, tuple[str, ...]] = {
    "slice": tuple(name for name in TASKS if "-" not in name),
    "full": tuple(name for name in TASKS if "-" in name),
}


def task_named(name: str, sizes: Sizes | None = None) -> Task:
    """The task of that name, with `sizes[name]` laid over its own sizes.

    Raises ConfigError for an unknown name or size, or for sizes that do not go together.
    """
    task = TASKS.get(name)
    if task is None:
        raise ConfigError(f"There is no task {name!r} in recall.tasks; {_known(name)}")
    given = (sizes or {}).get(name, {})
    changes: dict[str, Any] = {}
    own = {field.name: getattr(task, field.name) for field in fields(task)}
    for size, value in given.items():
        if size not in own:
            raise ConfigError(
                f"Unknown setting 'recall.sizes.{name}.{size}'; known are {', '.join(own)}."
            )
        changes[size] = tuple(value) if isinstance(value, list) else value
        if not _is_like(changes[size], own[size]):
            raise ConfigError(
                f"Setting 'recall.sizes.{name}.{size}' is {value!r}; it takes a value like "
                f"{own[size]!r}."
            )
    try:
        return replace(task, **changes)
    except ConfigError as error:
        raise ConfigError(f"recall.sizes.{name}: {error}") from None


def check_tasks(recall: RecallConfig) -> None:
    """Raises ConfigError unless every task can be drawn, trained and tested as configured."""
    for name in recall.sizes:
        task_named(name, recall.sizes)
    for name in recall.tasks:
        task = task_named(name, recall.sizes)
        batch_tokens = recall.batch_size * task.seq_len
        if recall.train_tokens < batch_tokens:
            raise ConfigError(
                f"recall.train_tokens={recall.train_tokens} is less than one batch of {name!r}: "
                f"it takes {batch_tokens}, or a smaller recall.batch_size."
            )
        for split in get_args(Split):
            draw_rows(name, task, _TRIED_ROWS, np.random.default_rng(0), split)
        for length in task.test_lengths:
            try:
                task.at_length(length)
            except ConfigError as error:
                raise ConfigError(
                    f"recall.sizes.{name}.test_lengths holds {length}: {error}"
                ) from None


def draw_rows(name: str, task: Task, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
    """Rows of a task; raises ConfigError for a task that breaks its own promises."""
    inputs, labels = task.generate(n_rows, rng, split)
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
    return inputs, labels


def _is_like(value: object, own: object) -> bool:
    if isinstance(own, tuple):
        return isinstance(value, tuple) and all(type(item) is int for item in value)
    if own is None or type(own) is float:
        return type(value) in (int, type(own))
    return type(value) is type(own)


def _known(name: str) -> str:
    near = difflib.get_close_matches(name, TASKS, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(sorted(TASKS))}."
