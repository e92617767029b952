"""Torch form of `gated_product`: torch's own operations and gradients, in the inputs' dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def product_of_tensors(
    x: Tensor, gate: Tensor, skip: Tensor | None, rate: Tensor | None, activation: str
) -> Tensor:
    if skip is not None and rate is not None:
        x = torch.addcmul(x, rate.to(x.dtype), skip.to(x.dtype))
    return x * (F.silu(gate) if activation == "silu" else gate.sigmoid())
