"""Every tensor that a mixer holds between calls: parameters, buffers and what hides elsewhere.

Walks the module tree, plain attributes, containers and objects in them, classes, closures and the
candidate's own globals. Numbers in lists and objects of foreign types are not looked into.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_MAX_OBJECTS = 20_000
_REGISTERED = ("_parameters", "_buffers", "_modules")


def held_tensors(mixer: nn.Module) -> dict[str, dict[str, Any]]:
    """By name: kind, numel of the whole storage, requires_grad, digest. Each storage once."""
    found: dict[str, dict[str, Any]] = {}
    storages: set[int] = set()
    for name, parameter in mixer.named_parameters():
        _add(found, storages, name, "parameter", parameter)
    for name, buffer in mixer.named_buffers():
        _add(found, storages, name, "buffer", buffer)
    for name, tensor in _reachable(mixer):
        _add(found, storages, name, "attribute", tensor)
    return found


def _add(
    found: dict[str, dict[str, Any]], storages: set[int], name: str, kind: str, tensor: Tensor
) -> None:
    if tensor.layout != torch.strided or nn.parameter.is_lazy(tensor):
        found[name] = {"kind": kind, "numel": 0, "requires_grad": False, "digest": None}
        return
    storage = tensor.untyped_storage()
    if storage._cdata in storages:
        return
    storages.add(storage._cdata)
    found[name] = {
        "kind": kind,
        "numel": storage.nbytes() // tensor.element_size(),
        "requires_grad": tensor.requires_grad,
        "digest": _digest(tensor) if kind == "buffer" else None,
    }


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


def _reachable(mixer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors outside the registers, nearest first, with the path that leads to each."""
    own_module = type(mixer).__module__
    waiting: list[tuple[str, Any]] = [
        (name, value)
        for path, module in mixer.named_modules()
        for name, value in _members(path, vars(module))
        if name.rpartition(".")[2] not in _REGISTERED
    ]
    waiting += _members("class", {c.__name__: c for c in type(mixer).__mro__})
    waiting += _members("module", _globals(own_module))
    seen = {id(module) for module in mixer.modules()}
    for path, value in waiting:  # grows while it is walked
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield path, value
        elif len(seen) < _MAX_OBJECTS:
            waiting += _contents(path, value, own_module)


def _contents(path: str, value: Any, own_module: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from _members(path, value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, partial):
        parts = value.func, *value.args, *value.keywords.values()
        yield from ((f"{path}()", part) for part in parts)
    elif isinstance(value, MethodType):
        yield f"{path}.self", value.__self__
    elif isinstance(value, FunctionType):
        if value.__module__ == own_module:
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
            inside = [*(value.__defaults__ or ()), *cells, value.__kwdefaults__, vars(value)]
            yield from ((f"{path}()", item) for item in inside)
    elif isinstance(value, type):
        if value.__module__ == own_module:
            yield from _members(path, dict(vars(value)))
    elif not isinstance(value, ModuleType) and hasattr(value, "__dict__"):
        yield from _members(path, vars(value))


def _members(path: str, values: Any) -> Iterator[tuple[str, Any]]:
    prefix = f"{path}." if path else ""
    return ((f"{prefix}{name}", value) for name, value in list(values.items()))


def _globals(name: str) -> dict[str, Any]:
    """A candidate's module-level names; nothing for a class that came from a file."""
    module = sys.modules.get(name)
    is_candidate = str(getattr(module, "__file__", None)).startswith("<")
    return dict(vars(module)) if module is not None and is_candidate else {}


def _is_set(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable that was never assigned
        return False
    return True
