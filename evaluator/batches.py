"""Training batches: cut outside, read inside. Batch i depends on the seed and on i alone.

The child gets one open descriptor, of a file that holds the tokens of its own batches and no
others: what it trains on is counted where it is written.
"""

from __future__ import annotations

import mmap
import os
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from .recipe import Recipe

_TOKEN_BYTES = {"uint8": 1, "uint16": 2, "uint32": 4}
# torch indexes no wide unsigned types: those are read as signed ones and masked.
_READ_AS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_STEPS_AT_ONCE = 1024


class Batches(Protocol):
    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        """Batch i: inputs [B, T] and labels [B, T], both int64; labels of -100 are not learned."""
        ...


def write_windows(tokens: Path, kind: str, recipe: Recipe, first: int, target: Path) -> None:
    """Random windows [steps * B, T + 1] of a long sequence, for the recipe's steps from `first` on.

    `kind` is the type of the file's tokens: "uint8", "uint16" or "uint32". Raises ValueError for a
    sequence shorter than a window.
    """
    sequence = np.memmap(tokens, dtype=kind, mode="r")
    n_starts = len(sequence) - recipe.seq_len
    if n_starts < 1:
        raise ValueError(f"{len(sequence)} tokens hold no window of {recipe.seq_len}")
    offsets = np.arange(recipe.seq_len + 1)
    with target.open("wb") as file:
        for begin in range(first, recipe.total_steps, _STEPS_AT_ONCE):
            steps = range(begin, min(begin + _STEPS_AT_ONCE, recipe.total_steps))
            starts = np.concatenate([_starts(recipe, i, n_starts) for i in steps])
            file.write(sequence[starts[:, None] + offsets].tobytes())


def open_batches(kind: str, descriptor: int, recipe: Recipe, device: torch.device) -> Batches:
    """`kind`: the type of a file of windows, or "rows" for safetensors of inputs and labels."""
    if kind == "rows":
        return RowBatches(descriptor, recipe, device)
    return WindowBatches(descriptor, _TOKEN_BYTES[kind], recipe, device)


class WindowBatches:
    """What `write_windows` left: the label of a token is the next one of its window."""

    def __init__(
        self, descriptor: int, token_bytes: int, recipe: Recipe, device: torch.device
    ) -> None:
        tokens = _map_tokens(descriptor, token_bytes)
        self._windows = tokens.view(-1, recipe.batch_size, recipe.seq_len + 1).to(device)
        self._mask = (1 << 8 * token_bytes) - 1
        self._first = recipe.total_steps - len(self._windows)

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        windows = self._windows[i - self._first].long() & self._mask  # [B, T + 1]
        return windows[:, :-1], windows[:, 1:]


class RowBatches:
    """Rows of a task in their order, from the first again after the last."""

    def __init__(self, descriptor: int, recipe: Recipe, device: torch.device) -> None:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            rows = safetensors.torch.load(file.read())
        self._inputs, self._labels = rows["inputs"].to(device), rows["labels"].to(device)
        self._batch_size = recipe.batch_size

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        first = i * self._batch_size
        n_rows = len(self._inputs)
        index = torch.arange(first, first + self._batch_size, device=self._inputs.device) % n_rows
        return self._inputs[index].long(), self._labels[index].long()


class NoiseBatches:
    """Fresh independent tokens, all equally likely: no model can know the next one."""

    def __init__(self, vocab_size: int, recipe: Recipe, device: torch.device) -> None:
        self._vocab_size, self._recipe, self._device = vocab_size, recipe, device

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        shape = (self._recipe.batch_size, self._recipe.seq_len + 1)
        drawn = _generator(self._recipe.seed, i).integers(self._vocab_size, size=shape)
        windows = torch.from_numpy(drawn).to(self._device)
        return windows[:, :-1], windows[:, 1:]


def _map_tokens(descriptor: int, token_bytes: int) -> Tensor:
    """The file as a read-only tensor, of a type to be masked."""
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is read-only
        return torch.frombuffer(mapped, dtype=_READ_AS[token_bytes])


def _starts(recipe: Recipe, i: int, n_starts: int) -> np.ndarray:
    return _generator(recipe.seed, i).integers(n_starts, size=recipe.batch_size)


def _generator(seed: int, i: int) -> np.random.Generator:
    return np.random.default_rng([seed, i])
