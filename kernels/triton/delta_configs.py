"""The delta rule's static configurations, one for each kernel and size class: nothing is tuned.

Every entry was run on an NVIDIA H200: its results agreed with the float64 loop's or, to the bit,
with those of an entry of other stages or registers that did. For blocks narrower than 64 beside
wider ones see the trap in configs.py: small sizes use narrow blocks for keys and values both, or
for neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .configs import block

NARROW = 32  # keys and values up to this width take blocks of their own size
_THREE_TO_A_PROCESSOR = 168  # registers a thread, for programs of 4 warps


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How a kernel is cut and compiled."""

    block_k: int
    block_v: int
    num_warps: int = 4
    num_stages: int
    maxnreg: int | None = None  # registers a thread; None: as many as the compiler likes

    def compiled(self) -> dict[str, int | None]:
        """The arguments of a launch that are the compiler's."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "maxnreg": self.maxnreg,
        }


def chunk(dtype: torch.dtype) -> int:
    """Tokens; float32's tiles of 64 rows would not fit into shared memory."""
    return 32 if dtype == torch.float32 else 64


def operands(key_dim: int, value_dim: int, dtype: torch.dtype) -> torch.dtype:
    """Of products and of what is kept between passes.

    Keys much narrower than a chunk make its system ill-conditioned: in bfloat16 its results were
    off by 8e-3 at 16 channels. There, products take float32 operands, rounded to tf32.
    """
    return torch.float32 if max(key_dim, value_dim) <= NARROW else dtype


def solve(key_dim: int, dtype: torch.dtype, gate: int) -> Config:
    plain = dtype == torch.float32
    return Config(
        block_k=block(key_dim, 64),
        block_v=16,
        num_stages=1 if plain else 2,
        maxnreg=None if plain or gate == 2 else _THREE_TO_A_PROCESSOR,
    )


def recurrence(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    """Programs hold all rows of the state and block_v of its columns."""
    narrow = max(key_dim, value_dim) <= NARROW
    # Two buffers for each tile leave no room for a second program beside the first.
    too_large = key_dim > 128 or (gate == 2 and key_dim > 64)
    return Config(
        block_k=block(key_dim, 256) if narrow else max(64, block(key_dim, 256)),
        block_v=block(value_dim, NARROW) if narrow else 64,
        num_warps=8 if key_dim > 128 else 4,
        num_stages=1 if dtype == torch.float32 or too_large else 2,
    )


def pairs(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    narrow = max(key_dim, value_dim) <= NARROW
    return Config(
        block_k=16,
        block_v=block(value_dim, NARROW) if narrow else 64,
        num_stages=1 if dtype == torch.float32 else 3,
    )


def pull(key_dim: int, value_dim: int, dtype: torch.dtype, gate: int) -> Config:
    narrow = max(key_dim, value_dim) <= NARROW
    plain = dtype == torch.float32
    return Config(
        block_k=block(key_dim, NARROW) if narrow else 64,
        block_v=block(value_dim, NARROW) if narrow else 64,
        num_warps=8 if gate == 2 and not narrow else 4,
        num_stages=1 if plain else 2,
        maxnreg=None if plain or gate != 0 else _THREE_TO_A_PROCESSOR,
    )
