"""Training batches in the child: batch i depends on the seed and on i alone, not on the candidate.

The data arrive as an open descriptor, so the child needs no path and sees no other file.
"""

from __future__ import annotations

import mmap
import os
import warnings
from typing import Protocol

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from .recipe import Recipe

_TOKEN_BYTES = {"uint8": 1, "uint16": 2}


class Batches(Protocol):
    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        """Batch i: inputs [B, T] and labels [B, T], both int64; labels of -100 are not learned."""
        ...


def open_batches(kind: str, descriptor: int, recipe: Recipe, device: torch.device) -> Batches:
    """`kind`: the type of a raw file's tokens, or "rows" for safetensors of inputs and labels."""
    if kind == "rows":
        return RowBatches(descriptor, recipe, device)
    return TokenBatches(descriptor, _TOKEN_BYTES[kind], recipe, device)


class TokenBatches:
    """Random windows of a long sequence: the label of a token is the next one."""

    def __init__(
        self, descriptor: int, token_bytes: int, recipe: Recipe, device: torch.device
    ) -> None:
        self._tokens = _map_tokens(descriptor, token_bytes).to(device)
        self._mask = (1 << 8 * token_bytes) - 1
        self._seed = recipe.seed
        self._offsets = torch.arange(recipe.seq_len + 1, device=device)
        n_starts = self._tokens.numel() - recipe.seq_len
        if n_starts < 1:
            raise ValueError(f"{self._tokens.numel()} tokens hold no window of {recipe.seq_len}")
        starts = [
            _generator(recipe.seed, i).integers(n_starts, size=recipe.batch_size)
            for i in range(recipe.total_steps)
        ]
        self._starts = torch.from_numpy(np.stack(starts)).to(device)  # [steps, B]

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        windows = self._tokens[self._starts[i, :, None] + self._offsets]  # [B, T + 1]
        windows = windows.long() & self._mask
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


def _map_tokens(descriptor: int, token_bytes: int) -> Tensor:
    """The file as a read-only tensor; torch indexes no uint16: those come as int16 to be masked."""
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is read-only
        return torch.frombuffer(mapped, dtype=torch.uint8 if token_bytes == 1 else torch.int16)


def _generator(seed: int, i: int) -> np.random.Generator:
    return np.random.default_rng([seed, i])
