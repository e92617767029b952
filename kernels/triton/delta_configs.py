"""The delta rule's static configurations, one for each kernel and size class: nothing is tuned.

These rules hold where the measured table (config_table.py) has no entry, and for calls with an
erase key, several steps a token or decays of columns, which the table was not measured with. What
they give was run on an NVIDIA H200: its results agreed with the float64 loop's or, to the bit, with
those of an entry of other stages or registers that did. For blocks narrower than 64 beside wider
ones see the trap in configs.py: small sizes use narrow blocks for keys and values both, or for
neither.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .config_table import Config, Launch, chosen
from .configs import block

NARROW = 32  # keys and values up to this width take blocks of their own size
THREE_TO_A_PROCESSOR = 168  # registers a thread, for programs of 4 warps


def chunk(dtype: torch.dtype) -> int:
    """Tokens; float32's tiles of 64 rows would not fit into shared memory."""
    return 32 if dtype == torch.float32 else 64


def operands(key_dim: int, value_dim: int, dtype: torch.dtype) -> torch.dtype:
    """Of products and of what is kept between passes.

    Keys much narrower than a chunk make its system ill-conditioned: in bfloat16 its results were
    off by 8e-3 at 16 channels. There, products take float32 operands, rounded to tf32.
    """
    return torch.float32 if max(key_dim, value_dim) <= NARROW else dtype


def solve(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int, *, is_plain: bool) -> Config:
    """Tiles of keys; values take no part. is_plain, here and below: one step, no erase
    key, no decays of columns."""
    wide = operands(key_dim, value_dim, dtype) == torch.float32
    rule = Config(
        block_m=block(key_dim, 64),
        block_n=16,
        num_stages=1 if wide or gate == 2 else 2,
        max_registers=None if wide or gate == 2 else THREE_TO_A_PROCESSOR,
    )
    return _chosen(Launch("delta solve", gate, key_dim, value_dim, dtype), rule, is_plain)


def forward(
    key_dim: int, value_dim: int, dtype: torch.dtype, gate: int, *, is_plain: bool
) -> Config:
    rule = _recurrence(key_dim, value_dim, dtype, gate)
    return _chosen(Launch("delta forward", gate, key_dim, value_dim, dtype), rule, is_plain)


def backward(
    key_dim: int, value_dim: int, dtype: torch.dtype, gate: int, *, is_plain: bool
) -> Config:
    rule = _recurrence(key_dim, value_dim, dtype, gate)
    return _chosen(Launch("delta backward", gate, key_dim, value_dim, dtype), rule, is_plain)


def _recurrence(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    """Programs hold all rows of the state and block_n of its columns."""
    narrow = max(key_dim, value_dim) <= NARROW
    # Two buffers for each tile leave no room for a second program beside the first.
    too_large = key_dim > 128 or (gate == 2 and key_dim > 64)
    wide = operands(key_dim, value_dim, dtype) == torch.float32
    return Config(
        block_m=block(key_dim, 256) if narrow else max(64, block(key_dim, 256)),
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_warps=8 if key_dim > 128 else 4,
        num_stages=1 if wide or too_large else 2,
    )


def with_columns(config: Config) -> Config:
    """For a kernel that goes through decays of columns, whose tiles take more registers."""
    return replace(config, num_warps=8, num_stages=1, max_registers=None)


def pairs(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int, *, is_plain: bool) -> Config:
    """Tiles of values; keys take no part."""
    narrow = max(key_dim, value_dim) <= NARROW
    rule = Config(
        block_m=16,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_stages=1 if operands(key_dim, value_dim, dtype) == torch.float32 else 3,
    )
    return _chosen(Launch("delta pairs", gate, key_dim, value_dim, dtype), rule, is_plain)


def pull(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int, *, is_plain: bool) -> Config:
    narrow = max(key_dim, value_dim) <= NARROW
    wide = operands(key_dim, value_dim, dtype) == torch.float32
    rule = Config(
        block_m=block(key_dim, NARROW) if narrow else 64,
        block_n=block(value_dim, NARROW) if narrow else 64,
        num_stages=1 if wide or gate == 2 else 2,
        max_registers=None if wide or gate != 0 else THREE_TO_A_PROCESSOR,
    )
    return _chosen(Launch("delta pull", gate, key_dim, value_dim, dtype), rule, is_plain)


def _chosen(launch: Launch, rule: Config, is_plain: bool) -> Config:
    return chosen(launch, rule) if is_plain else rule
