"""Static configurations of Oja's kernels, one for each kernel and size class.

The rules are those that the delta rule's kernels were checked with, with keys and values exchanged.
Oja's were never tuned, and so the measured table (config_table.py) has no entry for them.
"""

from __future__ import annotations

import torch

from .config_table import Config
from .configs import block
from .delta_configs import NARROW, THREE_TO_A_PROCESSOR


def operands(value_dim: int, dtype: torch.dtype) -> torch.dtype:
    """Of products and of what is kept between passes.

    Values much narrower than a chunk make its system ill-conditioned: in bfloat16 results were off
    by 6e-3 at 16 channels. There, products take float32 operands, rounded to tf32.
    """
    return torch.float32 if value_dim <= NARROW else dtype


def solve(value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    """Tiles of values; keys take no part."""
    wide = _is_wide(value_dim, dtype)
    return Config(
        block_m=16,
        block_n=block(value_dim, 64),
        num_stages=1 if wide or gate == 2 else 2,
        max_registers=None if wide or gate == 2 else THREE_TO_A_PROCESSOR,
    )


def recurrence(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    """Programs hold all of a state's values (block_n) for block_m keys."""
    rows = block(value_dim, 256)
    # Two buffers for each tile leave no room for a second program beside the first.
    too_large = value_dim > 128 or (gate == 2 and value_dim > 64)
    return Config(
        block_m=_block(key_dim, key_dim, value_dim),
        block_n=rows if _is_narrow(key_dim, value_dim) else max(64, rows),
        num_warps=8 if value_dim > 128 else 4,
        num_stages=1 if _is_wide(value_dim, dtype) or too_large else 2,
    )


def read(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """Of outputs and queries."""
    return Config(
        block_m=_block(key_dim, key_dim, value_dim),
        block_n=_block(value_dim, key_dim, value_dim),
        num_stages=1 if _is_wide(value_dim, dtype) else 2,
    )


def pairs(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """Tiles of keys; values take no part."""
    return Config(
        block_m=_block(key_dim, key_dim, value_dim),
        block_n=16,
        num_stages=1 if _is_wide(value_dim, dtype) else 3,
    )


def pull(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    wide = _is_wide(value_dim, dtype)
    return Config(
        block_m=_block(key_dim, key_dim, value_dim),
        block_n=_block(value_dim, key_dim, value_dim),
        num_stages=1 if wide or gate == 2 else 2,
        max_registers=None if wide or gate != 0 else THREE_TO_A_PROCESSOR,
    )


def _is_wide(value_dim: int, dtype: torch.dtype) -> bool:
    return operands(value_dim, dtype) == torch.float32


def _is_narrow(key_dim: int, value_dim: int) -> bool:
    """Whether blocks have their own size, or 64: see the trap in configs.py."""
    return max(key_dim, value_dim) <= NARROW


def _block(dim: int, key_dim: int, value_dim: int) -> int:
    return block(dim, NARROW) if _is_narrow(key_dim, value_dim) else 64
