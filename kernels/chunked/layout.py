"""Cuts [B, T, H, D] into chunks [N*B*H, C, D], the layout of every chunked form, and back.

The chunk number varies slowest, so that one chunk of all heads is contiguous for the loop over
chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Measured in docs/kernels.md; also the longest chunk that `gates.ChannelGates` can hold.
CHUNK = 32


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """`length` rows are `steps` for each token; chunks hold whole tokens."""

    batch: int
    length: int
    heads: int
    steps: int = 1

    @classmethod
    def of(cls, x: Tensor, steps: int = 1) -> ChunkLayout:
        """The layout that cuts x [B, T, H, D]."""
        batch, length, heads, _ = x.shape
        return cls(batch, length, heads, steps)

    @property
    def chunk(self) -> int:
        return min(self.length, max(CHUNK // self.steps, 1) * self.steps)

    @property
    def chunks(self) -> int:
        return -(-self.length // self.chunk)

    def cut(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """scale * x in chunks, contiguous; zeros fill the last one."""
        missing = self.chunks * self.chunk - self.length
        if missing:
            x = F.pad(x, (0, 0, 0, 0, 0, missing))
        x = x.reshape(self.batch, self.chunks, self.chunk, self.heads, -1)
        x = x.permute(1, 0, 3, 2, 4)  # [N, B, H, C, D]
        cut = torch.mul(x, scale, out=x.new_empty(x.shape))
        return cut.flatten(0, 2)

    def join(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """scale * x as [B, T, H, D], contiguous, without the filling."""
        x = x.view(self.chunks, self.batch, self.heads, *x.shape[1:]).permute(1, 0, 3, 2, 4)
        joined = torch.mul(x, scale, out=x.new_empty(x.shape))  # [B, N, C, H, D]
        return joined.flatten(1, 2)[:, : self.length]

    def by_chunk(self, x: Tensor) -> Tensor:
        """[N*B*H, ...] as [N, B*H, ...]."""
        return x.view(self.chunks, -1, *x.shape[1:])

    def cut_state(self, state: Tensor | None) -> Tensor | None:
        """[B, H, K, V] as [B*H, K, V]."""
        return None if state is None else state.flatten(0, 1)

    def join_state(self, state: Tensor) -> Tensor:
        """[B*H, K, V] as a [B, H, K, V] of its own."""
        own = torch.empty_like(state, memory_format=torch.contiguous_format).copy_(state)
        return own.view(self.batch, self.heads, *state.shape[1:])
