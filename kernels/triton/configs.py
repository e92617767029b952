"""One static configuration for each kernel and size class: nothing is tuned while a program runs.

These rules hold where the measured table (config_table.py) has no entry. What they give was run on
an NVIDIA H200 and its results compared with the float64 loops. Attention's and the convolution's
were chosen by the compiler's report on registers alone, not by time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .config_table import Config, Launch, chosen

CHUNK = 64  # tokens
# Programs of a sweep below which sequences are cut into segments, and how many they then make at
# most: two rounds of two on each of 132 processors.
FEW_PROGRAMS, MOST_PROGRAMS = 132, 528
SHORTEST_SEGMENT = 4  # chunks
# Keys and values of the largest state that one program holds with all it reads, without a gate and
# with a head's. With a gate, 64 took 510 us beside 465 of a sweep and a pull: registers spill.
WHOLE_STATE = (64, 32)
WHOLE_STATE_DTYPES = [torch.bfloat16]
# Tokens of the shortest run that a convolution's threads walk along, to which the first of the next
# one reaches back at most; and programs that are enough for no shorter runs.
SHORTEST_RUN, ENOUGH_WALKS = 16, 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """A kernel whose threads walk along time: how many runs and channels a program has, how many
    tokens of each it asks for at once, and how many a run has where there are many runs.
    """

    runs: int
    channels: int
    step: int
    longest_run: int
    num_warps: int


# Attention's for float32, whose products are unrolled: wider blocks compile four times as long.
_PLAIN = Config(block_m=16, block_n=16, num_warps=4, num_stages=1)


def sweep(
    m: int, n: int, dtype: torch.dtype, *, gate: int, reverse: bool, exact: bool = False
) -> Config:
    """For sums over rows of m elements and outputs of n: a tile of the state.

    exact: for the launch that takes over strong gates, on the same grid.
    """
    wide = dtype == torch.float32
    block_m, block_n = _whole_blocks(m, n)
    if m > 64 and not wide:
        block_m = 128  # beside which a narrower block_n gives wrong gate gradients (Triton 3.6)
    rule = Config(
        block_m=block_m, block_n=block_n, num_stages=1 if wide else 3 if block_m <= 64 else 2
    )
    kernel = "decay sweep reversed" if reverse else "decay sweep"
    return _for_launch(chosen(Launch(kernel, gate, m, n, dtype), rule), exact)


def pull(
    key_dim: int, value_dim: int, dtype: torch.dtype, *, gate: int, exact: bool = False
) -> Config:
    rule = Config(block_m=block(key_dim, 64), block_n=block(value_dim, 64), num_stages=1)
    launch = Launch("decay pull", gate, key_dim, value_dim, dtype)
    return _for_launch(chosen(launch, rule), exact)


def whole_pull(key_dim: int, value_dim: int, dtype: torch.dtype, *, gate: int) -> Config:
    block_m, block_n = _whole_blocks(key_dim, value_dim)
    rule = Config(block_m=block_m, block_n=block_n, num_stages=1 if gate else 3)  # else it spills
    return chosen(Launch("decay whole pull", gate, key_dim, value_dim, dtype), rule)


def _whole_blocks(m: int, n: int) -> tuple[int, int]:
    """Up to 64 each: narrow ones only beside narrow ones."""
    return (block(m, 32), block(n, 32)) if max(m, n) <= 32 else (64, 64)


def _for_launch(config: Config, exact: bool) -> Config:
    """An exact launch adds up gates between tokens: there is nothing to load ahead."""
    return replace(config, num_stages=1) if exact else config


def attention(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """Blocks of queries (block_m) and keys (block_n); channels are never cut."""
    if dtype == torch.float32:
        return _PLAIN
    wide = max(key_dim, value_dim)
    return Config(block_m=128, block_n=64, num_warps=8, num_stages=3 if wide <= 128 else 2)


def attention_queries(key_dim: int, value_dim: int, dtype: torch.dtype) -> Config:
    """For the gradient of queries."""
    if dtype == torch.float32:
        return _PLAIN
    wide = max(key_dim, value_dim)
    if wide <= 128:
        return Config(block_m=64, block_n=64, num_warps=4, num_stages=2)
    return Config(block_m=128, block_n=64, num_warps=8, num_stages=1)


def attention_keys(
    key_dim: int, value_dim: int, dtype: torch.dtype
) -> tuple[Config, tuple[tuple[bool, bool], ...]]:
    """For the gradients of keys and values, and which of the two each launch makes."""
    both, each = ((True, True),), ((True, False), (False, True))
    if dtype == torch.float32:
        return _PLAIN, both
    wide = max(key_dim, value_dim)
    if wide <= 64:
        return Config(block_m=64, block_n=64, num_warps=4, num_stages=2), both
    stages, passes = (2, both) if wide <= 128 else (1, each)
    return Config(block_m=64, block_n=128, num_warps=8, num_stages=stages), passes


def convolution(head_dim: int) -> Walk:
    """Forward and backward. head_dim: of heads of unit length, which lie within a block of
    channels; 0 for none.
    """
    channels = max(64, head_dim)
    return Walk(runs=512 // channels, channels=channels, step=4, longest_run=64, num_warps=4)


def segments(programs: int, chunks: int) -> int:
    """How many a sequence is cut into, each a program, when `programs` go through whole ones."""
    if programs >= FEW_PROGRAMS:
        return 1
    return max(1, min(MOST_PROGRAMS // programs, chunks // SHORTEST_SEGMENT))


def block(size: int, largest: int) -> int:
    """The power of two from 16 to `largest` that holds `size`, or `largest`."""
    width = 16
    while width < min(size, largest):
        width *= 2
    return width
