"""Counts what one forward and backward of a mixer cost: every operator's work and the live bytes.

Counts are exact and carry no noise, so their growth with T tells a quadratic part from a linear one
although it may be small. They are a claim of the child's all the same: candidate code runs in the
process that counts, so the supervisor compares them with the CPU time that it sees from outside.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .operator_work import elements, is_view, multiply_adds

_TORCH_FOLDER = os.path.dirname(torch.__file__)
_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_FRAMES = 3  # of the candidate's or our code that name where an operator was called
# Autograd's own bookkeeping: the gradient of one token of a sequence is written into zeros of the
# whole length and added up, for every token anew. That is torch's price for indexing in a loop and
# no part of the mixer's arithmetic, so it is counted apart.
_BOOKKEEPING_NODES = frozenset(
    {"SelectBackward0", "SliceBackward0", "torch::autograd::CopySlices", "AsStridedBackward0"}
)

_Place = tuple[tuple[CodeType, int], ...]
_Site = tuple[str, str, "str | _Place"]


class CostMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator called inside it, in backward passes too. Name phases with `phase`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.totals: dict[str, dict[str, int]] = {}
        self.sites: dict[_Site, list[int]] = {}
        self._phase = ""
        self._views: dict[Any, bool] = {}
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._live_bytes = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what happens inside under `name`."""
        self._phase = name
        self.totals[name] = {
            "calls": 0,
            "elements": 0,
            "multiply_adds": 0,
            "bookkeeping": 0,
            "peak_bytes": self._live_bytes,
        }
        with self:
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        view = self._views.get(func)
        if view is None:
            view = self._views[func] = is_view(func)
        if not view:
            given = list(_tensors((*args, *kwargs.values()) if kwargs else args))
            self._count(func._schema.name, args, given, list(_tensors((out,))))
        return out

    def _count(
        self, name: str, args: tuple[Any, ...], given: list[Tensor], returned: list[Tensor]
    ) -> None:
        total = self.totals[self._phase]
        total["calls"] += 1
        for tensor in returned:
            self._hold(tensor)
        total["peak_bytes"] = max(total["peak_bytes"], self._live_bytes)

        place = _place()
        where: str | _Place = place
        if not place:  # called by the backward pass itself
            node = torch._C._current_autograd_node()  # type: ignore[attr-defined]
            where = "" if node is None else node.name()
            if where in _BOOKKEEPING_NODES:
                total["bookkeeping"] += elements(name, given, returned)
                return
        n_elements = elements(name, given, returned)
        n_products = multiply_adds(name, args, returned)
        total["elements"] += n_elements
        total["multiply_adds"] += n_products
        site = self.sites.setdefault((self._phase, name, where), [0, 0])
        site[0] += n_elements
        site[1] += n_products

    def _hold(self, tensor: Tensor) -> None:
        """Counts a new storage as live until its last owner lets go of it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        n_bytes = storage.nbytes()
        self._live[key] = weakref.ref(storage, lambda _: self._let_go(key)), n_bytes
        self._live_bytes += n_bytes

    def _let_go(self, key: int) -> None:
        _, n_bytes = self._live.pop(key)
        self._live_bytes -= n_bytes


def measure_cost(mixer: nn.Module, x: Tensor, cotangent: Tensor) -> dict[str, Any]:
    """Counts of a training step's forward and backward, and of an evaluation: plain data.

    `phases`: by phase, the totals. `sites`: [phase, operator, where, elements, multiply-adds] for
    each place that called one.
    """
    meter = CostMeter()
    given = x.requires_grad_().clone()  # what it gets in a model is no leaf either
    mixer.train()
    with meter.phase("forward"):
        y = mixer(given)[0]
    with meter.phase("backward"):
        if y.requires_grad:
            torch.autograd.backward(y, cotangent.to(y))
    del y
    mixer.eval()
    mixer.zero_grad(set_to_none=True)
    with torch.no_grad(), meter.phase("evaluation"):
        mixer(x)
    sites = [
        [phase, operator, where if isinstance(where, str) else _named(where), *work]
        for (phase, operator, where), work in meter.sites.items()
    ]
    return {"phases": meter.totals, "sites": sites}


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _place() -> _Place:
    """The innermost frames outside torch that led to the operator, up to this file's."""
    frames: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(frames) < _FRAMES:
        code = frame.f_code
        if code.co_filename == __file__:
            if code.co_name != "__torch_dispatch__":
                break
        elif not code.co_filename.startswith(_TORCH_FOLDER):
            frames.append((code, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)


def _named(place: _Place) -> str:
    """As "kernels/chunked/decay.py:82 < line 40", the candidate's own lines by number alone."""
    return " < ".join(
        f"line {line}"
        if code.co_filename.startswith("<")
        else f"{os.path.relpath(code.co_filename, _PACKAGE_FOLDER)}:{line}"
        for code, line in place
    )
