"""Sequences packed end to end in one row, [1, T, ...], spread over a row each, and back.

The rows are as long as the longest sequence; zeros fill the others. A state passes them unchanged:
a log decay of 0 keeps all of it, a key, value and strength of 0 write nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from .checks import Arguments

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    longest: int  # sequence, in tokens
    lengths: Tensor  # [N]
    places: Tensor  # [T], where each token is in the rows laid end to end

    @classmethod
    def of(cls, check: Arguments, cu_seqlens: Tensor, device: torch.device) -> Packing:
        """From checked boundaries, [N + 1]."""
        bounds = check.boundaries("cu_seqlens", cu_seqlens)
        longest = max(end - start for start, end in pairwise(bounds))
        # A copy to the GPU need not be waited for.
        starts = cu_seqlens.to(device, torch.int64, non_blocking=True)
        lengths = starts.diff()
        tokens = torch.arange(bounds[-1], device=device)
        rows = torch.arange(0, len(lengths) * longest, longest, device=device)
        shifts = (rows - starts[:-1]).repeat_interleave(lengths, output_size=bounds[-1])
        return cls(longest=longest, lengths=lengths, places=tokens + shifts)

    def in_rows(
        self,
        operation: Callable[..., tuple[Tensor, Tensor]],
        packed: dict[str, Tensor | None],
        **others: object,
    ) -> tuple[Tensor, Tensor]:
        """The output, packed, and the states of a call with the packed arguments in rows."""
        rows = {name: self.unpack(x) for name, x in packed.items()}
        o, state = operation(**rows, **others)
        return self.pack(o), state

    def unpack(self, x: MaybeTensor) -> MaybeTensor:
        """[1, nT, ...] as [N, n longest, ...]: n rows for each token."""
        if x is None:
            return None
        tokens, sequences = len(self.places), len(self.lengths)
        x = x.reshape(tokens, -1, *x.shape[2:])
        rows = x.new_zeros(sequences * self.longest, *x.shape[1:])
        return rows.index_copy_(0, self.places, x).view(sequences, -1, *x.shape[2:])

    def pack(self, x: Tensor) -> Tensor:
        """[N, longest, ...] as [1, T, ...]."""
        return x.flatten(0, 1).index_select(0, self.places)[None]

    def last(self, x: Tensor, count: int) -> Tensor:
        """Each sequence's last, [N, count, D], of x [N, count + longest, D]."""
        index = self.lengths[:, None] + torch.arange(count, device=x.device)
        return torch.take_along_dim(x, index[..., None], dim=1)
