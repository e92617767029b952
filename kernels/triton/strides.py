"""How tensors lie in memory, as launches say it."""

from __future__ import annotations

from torch import Tensor


def rows(x: Tensor) -> tuple[int, int, int]:
    """Strides of sequences, tokens and heads."""
    return x.stride(0), x.stride(1), x.stride(2)


def rows_adjacent(x: Tensor) -> Tensor:
    """x, or a copy where the elements of a row are apart."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
