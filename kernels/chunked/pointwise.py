"""Torch form of `activation`'s functions: torch's own, which neither overflow nor cancel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def activated(x: Tensor, function: str, floor: float) -> Tensor:
    if function == "log_sigmoid" and floor > 0:
        return torch.log1p((floor - 1) * torch.sigmoid(-x))
    return _FUNCTIONS[function](x)


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu_plus_one": lambda x: F.elu(x) + 1,
    "exp": torch.exp,
    "log_sigmoid": F.logsigmoid,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "squared_relu": lambda x: F.relu(x).square(),
}
