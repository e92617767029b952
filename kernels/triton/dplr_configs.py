"""`chunk_dplr`'s static configurations, one for each kernel and size class: nothing is tuned.

Chosen by the compiler's report on registers and shared memory, not by time. Chunks, operands and
which sizes are narrow are the delta rule's.
"""

from __future__ import annotations

import torch

from .config_table import Config
from .configs import block
from .delta_configs import NARROW, operands


def solve(key_dim: int) -> Config:
    """Tiles of keys; values take no part."""
    return Config(block_m=block(key_dim, 64), block_n=16, num_warps=8, num_stages=1)


def recurrence(key_dim: int, value_dim: int) -> Config:
    """Programs hold all rows of the state and block_n of its columns."""
    narrow = max(key_dim, value_dim) <= NARROW
    return Config(
        block_m=block(key_dim, 256) if narrow else max(64, block(key_dim, 256)),
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_warps=8 if key_dim > 128 else 4,
        num_stages=1,  # two buffers for each of eight tiles leave no room for a second program
    )


def pairs(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """Tiles of values; keys take no part."""
    narrow = max(key_dim, value_dim) <= NARROW
    return Config(
        block_m=16,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_stages=1 if operands(key_dim, value_dim, dtype) == torch.float32 else 2,
    )


def pull(key_dim: int, value_dim: int) -> Config:
    narrow = max(key_dim, value_dim) <= NARROW
    return Config(
        block_m=block(key_dim, NARROW) if narrow else 64,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_warps=8,
        num_stages=1,
    )
