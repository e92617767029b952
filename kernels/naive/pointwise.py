"""Specification of `activation`'s functions, as written."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def activation_formula(x: Tensor, function: str, floor: float) -> Tensor:
    if function == "log_sigmoid":
        return (floor + (1 - floor) / (1 + (-x).exp())).log()
    return _FORMULAS[function](x)


_FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu_plus_one": lambda x: torch.where(x > 0, x + 1, x.exp()),
    "exp": lambda x: x.exp(),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "silu": lambda x: x / (1 + (-x).exp()),
    "softplus": lambda x: (1 + x.exp()).log(),
    "squared_relu": lambda x: torch.where(x > 0, x * x, 0.0),
}
