"""`chunk_dplr`'s static configurations, one for each kernel and size class: nothing is tuned.

These rules hold where the measured table (config_table.py) has no entry. On an H100 eight warps in
the place of four took 7 to 16 % more of both passes in the solve, for readers and for writers.
Chunks, operands and which sizes are narrow are the delta rule's.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .config_table import GATES, Config, Launch, chosen
from .configs import block
from .delta_configs import NARROW, operands

_GATE = GATES.index("channel")  # the kernels know no other


def solve(key_dim: int, value_dim: int, dtype: torch.dtype, *, exact: bool = False) -> Config:
    """Tiles of keys; values take no part. exact: for what only strong gates need, not tabled."""
    rule = Config(block_m=block(key_dim, 64), block_n=16, num_warps=4, num_stages=1)
    if exact:
        return replace(rule, num_warps=8)
    return chosen(Launch("dplr solve", _GATE, key_dim, value_dim, dtype), rule)


def forward(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    rule = _recurrence(key_dim, value_dim)
    return chosen(Launch("dplr forward", _GATE, key_dim, value_dim, dtype), rule)


def backward(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    rule = _recurrence(key_dim, value_dim)
    return chosen(Launch("dplr backward", _GATE, key_dim, value_dim, dtype), rule)


def _recurrence(key_dim: int, value_dim: int) -> Config:
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
    rule = Config(
        block_m=16,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_stages=1 if operands(key_dim, value_dim, dtype) == torch.float32 else 2,
    )
    return chosen(Launch("dplr pairs", _GATE, key_dim, value_dim, dtype), rule)


def readers(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    rule = replace(exact_pull(key_dim, value_dim, dtype), num_warps=4)
    return chosen(Launch("dplr readers", _GATE, key_dim, value_dim, dtype), rule)


def writers(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    rule = replace(exact_pull(key_dim, value_dim, dtype), num_warps=4)
    return chosen(Launch("dplr writers", _GATE, key_dim, value_dim, dtype), rule)


def exact_pull(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """For what only strong gates need: not in the table."""
    narrow = max(key_dim, value_dim) <= NARROW
    return Config(
        block_m=block(key_dim, NARROW) if narrow else 64,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_warps=8,
        num_stages=1,
    )
