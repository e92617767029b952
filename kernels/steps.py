"""Several delta steps a token, as one step for each of n times as many tokens.

A token's decay stands at its first step and its query at its last; what that step reads is the
token's output.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def at_first_step(x: Tensor, steps: int) -> Tensor:
    """[B, T, H, ...] to [B, nT, H, ...]: zeros at the other steps."""
    return x if steps == 1 else _padded(x, (0, steps - 1))


def at_last_step(x: Tensor, steps: int) -> Tensor:
    return x if steps == 1 else _padded(x, (steps - 1, 0))


def _padded(x: Tensor, others: tuple[int, int]) -> Tensor:
    within_a_row = (0, 0) * (x.dim() - 2)
    return F.pad(x.unsqueeze(2), (*within_a_row, *others)).flatten(1, 2)
