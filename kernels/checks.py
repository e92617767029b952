"""Argument checks shared by the operations: a ValueError names what an argument had and wanted.

Shapes, dtypes and devices are checked always, values (which would stall a GPU) only under
LINEARCH_DEBUG=1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class Arguments:
    """Checks one call's tensors against named axes; the first with an axis fixes its size."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.sizes: dict[str, int] = {}
        self._fixed_by: dict[str, str] = {}
        self._first: tuple[str, torch.device] | None = None

    def tensor(self, name: str, x: Tensor, axes: str) -> None:
        """Check a floating tensor against axes such as "B T H K"."""
        self.placed(name, x)
        if not x.is_floating_point():
            raise self.error(f"{name} has dtype {x.dtype}; wanted a floating dtype")
        self.shape(name, x, axes)

    def optional(self, name: str, x: Tensor | None, axes: str) -> None:
        if x is not None:
            self.tensor(name, x, axes)

    def one_of(self, name: str, x: Tensor | None, choices: Sequence[str]) -> None:
        """Check a tensor against the one of `choices` that has its rank; None passes."""
        if x is None:
            return
        self.placed(name, x)
        fitting = [axes for axes in choices if len(axes.split()) == x.dim()]
        if not fitting:
            wanted = " or ".join(_brackets(axes) for axes in choices)
            raise self.error(f"{name} has shape {list(x.shape)}; wanted {wanted}")
        self.tensor(name, x, fitting[0])

    def shape(self, name: str, x: Tensor, axes: str) -> None:
        """Axes may offer a choice of sizes already fixed: "B T H|HV"."""
        letters = axes.split()
        if x.dim() != len(letters):
            raise self.error(
                f"{name} has shape {list(x.shape)} ({x.dim()} axes); wanted {_brackets(axes)}"
            )
        for axis, (letter, size) in enumerate(zip(letters, x.shape, strict=True)):
            if size == 0 and letter not in self.sizes and letter != "P":
                raise self.error(f"{name} has {letter} = 0 (axis {axis}); wanted 1 or more")
            if "|" not in letter and letter not in self.sizes:
                self.fix(letter, size, name)
            if all(self.sizes[choice] != size for choice in letter.split("|")):
                wanted = " or ".join(
                    f"{choice} = {self.sizes[choice]} as in {self._fixed_by[choice]}"
                    for choice in letter.split("|")
                )
                raise self.error(
                    f"{name} has shape {list(x.shape)}, {size} on axis {axis}; wanted {wanted}"
                )

    def fix(self, letter: str, size: int, whose: str) -> None:
        """Fix an axis' size without a tensor that has it."""
        self.sizes[letter], self._fixed_by[letter] = size, whose

    def placed(self, name: str, x: Tensor) -> None:
        """Check that an argument is a tensor on the device of the first one checked."""
        if not isinstance(x, Tensor):
            raise self.error(f"{name} is a {type(x).__name__}; wanted a tensor")
        if self._first is None:
            self._first = (name, x.device)
        elif x.device != self._first[1]:
            first, device = self._first
            raise self.error(f"{name} is on {x.device}; wanted {device}, where {first} is")

    def multiple(self, name: str, letter: str, of: str, whose: str) -> int:
        """How many times axis `letter` (of argument `name`) holds axis `of` (of `whose`)."""
        ratio, rest = divmod(self.sizes[letter], self.sizes[of])
        if rest:
            raise self.error(
                f"{name} has {letter} = {self.sizes[letter]}; wanted a multiple of {of} = "
                f"{self.sizes[of]} as in {whose}"
            )
        return ratio

    def boundaries(self, name: str, x: Tensor) -> list[int]:
        """Check where sequences packed into axes B = 1 and T begin and end; B is then their number.

        Unlike other tensors these may be on the CPU, since their values are read.
        """
        if not isinstance(x, Tensor) or x.device.type != "cpu":
            self.placed(name, x)
        if x.dtype not in (torch.int32, torch.int64) or x.dim() != 1 or len(x) < 2:
            had = f"dtype {x.dtype} and shape {list(x.shape)}"
            raise self.error(f"{name} has {had}; wanted int32 or int64 [N + 1]")
        batch, length = self.sizes["B"], self.sizes["T"]
        if batch != 1:
            raise self.error(f"{self._fixed_by['B']} has B = {batch}; wanted 1 beside {name}")
        bounds: list[int] = x.tolist()
        if (bounds[0], bounds[-1]) != (0, length):
            ends = f"{bounds[0]} to {bounds[-1]}"
            wanted = f"0 to T = {length} as in {self._fixed_by['T']}"
            raise self.error(f"{name} goes from {ends}; wanted {wanted}")
        for start, end in pairwise(bounds):
            if end < start:
                raise self.error(f"{name} falls from {start} to {end}; wanted bounds in order")
        self.fix("B", len(bounds) - 1, name)
        return bounds

    def log_decay_values(self, name: str, x: Tensor | None) -> None:
        """Under LINEARCH_DEBUG=1, refuse a log decay above 0 or a NaN."""
        if x is None or not values_are_checked():
            return
        if not bool((x <= 0).all()):
            raise self.error(f"{name} has values up to {x.max().item()}; wanted 0 or below")

    def strength_values(self, name: str, x: Tensor) -> None:
        """Under LINEARCH_DEBUG=1, refuse a strength outside 0 to 2 or a NaN."""
        if values_are_checked() and not bool(((x >= 0) & (x <= 2)).all()):
            lowest, highest = x.min().item(), x.max().item()
            raise self.error(f"{name} has values from {lowest} to {highest}; wanted 0 to 2")

    def error(self, message: str) -> ValueError:
        return ValueError(f"{self.operation}: {message}")


def values_are_checked() -> bool:
    return os.environ.get("LINEARCH_DEBUG") == "1"


def _brackets(axes: str) -> str:
    return "[" + ", ".join(axes.split()) + "]"
