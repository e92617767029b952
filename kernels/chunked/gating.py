"""Torch form of `gated_product`: torch's own operations and gradients, in the inputs' dtype."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def product_of_tensors(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    return x * (F.silu(gate) if activation == "silu" else gate.sigmoid())
