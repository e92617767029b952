"""Sequences packed end to end in one row, [1, T, ...], spread over a row each, and back.

The rows make a few batches of similar lengths, each as wide as its longest (lengths.py), and zeros
fill the others. A state passes them unchanged: a log decay of 0 keeps all of it, a key, value and
strength of 0 write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from .checks import Arguments
from .lengths import Batch, batches_of_similar_length

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)

# What a call costs however few its tokens are, as so many numbers in its inputs. On a CPU forward
# and backward take 1.2 ms for two tokens, as for 150 more of 200 numbers each; on an H100's host
# launches and copies took about 1 ms, in which the GPU takes some 25,000 tokens of 16 heads of 128.
_CALL_NUMBERS_ON_CPU, _CALL_NUMBERS = 2**15, 2**27


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    bounds: tuple[int, ...]  # [N + 1], where the sequences begin and end
    device: torch.device

    @classmethod
    def of(cls, check: Arguments, cu_seqlens: Tensor, device: torch.device) -> Packing:
        return cls(bounds=tuple(check.boundaries("cu_seqlens", cu_seqlens)), device=device)

    def in_rows(
        self,
        operation: Callable[..., tuple[Tensor, Tensor]],
        packed: dict[str, Tensor | None],
        *,
        initial_state: Tensor | None,
        **others: object,
    ) -> tuple[Tensor, Tensor]:
        """The output, packed, and the states of calls with the packed arguments in rows."""
        rows = self._rows(sum(x.numel() for x in packed.values() if x is not None))
        streams = {name: rows.unpack(x) for name, x in packed.items()}
        outputs, states = [], []
        for n, start in enumerate(rows.states_by_batch(initial_state)):
            batch = {name: parts[n] for name, parts in streams.items()}
            o, state = operation(**batch, initial_state=start, **others)
            outputs.append(o)
            states.append(state)
        return rows.pack(outputs), rows.states_in_order(states)

    def last_inputs(self, initial_state: Tensor, x: Tensor) -> Tensor:
        """Each sequence's last of x [1, T, D], after its initial_state's: [N, count, D] as this."""
        count = initial_state.shape[1]
        bounds = torch.tensor(self.bounds).to(self.device, non_blocking=True)
        starts, lengths = bounds[:-1, None], bounds.diff()[:, None]
        place = lengths - count + torch.arange(count, device=self.device)  # from the start of x
        of_x = x[0].index_select(0, (starts + place).clamp(0, x.shape[1] - 1).flatten())
        earlier = (place + count).clamp(max=count - 1)[..., None]
        of_state = torch.take_along_dim(initial_state, earlier, dim=1)
        return torch.where(place[..., None] >= 0, of_x.view_as(initial_state), of_state)

    def _rows(self, numbers: int) -> _Rows:
        """For inputs of so many numbers."""
        lengths = tuple(end - start for start, end in pairwise(self.bounds))
        call = _CALL_NUMBERS_ON_CPU if self.device.type == "cpu" else _CALL_NUMBERS
        batches = batches_of_similar_length(lengths, call * self.bounds[-1] // numbers)
        row_starts, end = [0] * len(lengths), 0
        for batch in batches:
            for sequence in batch.sequences:
                row_starts[sequence] = end
                end += batch.longest
        moves = [row - start for row, start in zip(row_starts, self.bounds, strict=False)]
        if end == self.bounds[-1] and not any(moves):
            return _Rows(batches=batches)
        order = [sequence for batch in batches for sequence in batch.sequences]
        back = sorted(range(len(order)), key=order.__getitem__)
        # A copy to the GPU need not be waited for.
        host = torch.tensor([lengths, moves, order, back])
        counts, shifts, *orders = host.to(self.device, non_blocking=True)
        tokens = torch.arange(self.bounds[-1], device=self.device)
        places = tokens + shifts.repeat_interleave(counts, output_size=len(tokens))
        return _Rows(batches=batches, places=places, orders=orders if len(batches) > 1 else ())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Of all batches, laid end to end with their padding."""

    batches: tuple[Batch, ...]
    places: Tensor | None = None  # [T], where each token is in them; None: where it was
    orders: Sequence[Tensor] = ()  # [N] each: the sequences as batches have them, and back

    def unpack(self, x: Tensor | None) -> Sequence[Tensor | None]:
        """[1, nT, ...] as [N, n longest, ...] for each batch: n rows for each token."""
        if x is None:
            return [None] * len(self.batches)
        sizes, rows = [batch.tokens for batch in self.batches], x[0]
        if self.places is None:
            rows = rows.unflatten(0, (sum(sizes), -1))
        else:
            rows = rows.unflatten(0, (len(self.places), -1))
            rows = x.new_zeros(sum(sizes), *rows.shape[1:]).index_copy_(0, self.places, rows)
        parts = [rows] if len(sizes) == 1 else rows.split(sizes)
        return [
            part.reshape(len(batch.sequences), -1, *x.shape[2:])
            for batch, part in zip(self.batches, parts, strict=True)
        ]

    def pack(self, outputs: Sequence[Tensor]) -> Tensor:
        """[N, longest, ...] for each batch as [1, T, ...]."""
        rows = _joined([o.flatten(0, 1) for o in outputs])
        return (rows if self.places is None else _taken(rows, self.places))[None]

    def states_by_batch(self, states: Tensor | None) -> Sequence[Tensor | None]:
        if states is None:
            return [None] * len(self.batches)
        if self.orders:
            states = _taken(states, self.orders[0])
        return list(states.split([len(batch.sequences) for batch in self.batches]))

    def states_in_order(self, states: Sequence[Tensor]) -> Tensor:
        joined = _joined(states)
        return _taken(joined, self.orders[1]) if self.orders else joined


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """x[places], none of which comes twice."""
    taken: Tensor = _Taken.apply(x, places)
    return taken


class _Taken(torch.autograd.Function):
    """As `index_select`, whose gradient adds up what may come twice: slower, atomic on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows, *grad.shape[1:]).index_copy(0, places, grad), None
