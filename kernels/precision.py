"""Recurrences run in float32 (float64 for float64 inputs), also where autocast would lower them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 as soon as one of the tensors is float64, else float32."""
    if any(x is not None and x.dtype == torch.float64 for x in tensors):
        return torch.float64
    return torch.float32


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` with autocast off for the device of its first tensor argument."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        device = next((x.device.type for x in given if isinstance(x, Tensor)), None)
        if device is None or not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return wrapped
