"""Carries the state from chunk to chunk, the only sequential part of a chunked form, and back.

States are [N + 1, BH, K, V], the initial one first and the final one last; `total` is what
remains of a state across each chunk, broadcastable to [N, BH, K, V], None for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gates import NoGates


@dataclass(frozen=True, slots=True)
class StateDecay:
    """What remains of a state across a chunk, by the gates of its rows and of its columns."""

    chunks: int
    rows: NoGates
    columns: NoGates

    def total(self) -> Tensor | None:
        by_row, by_column = self._by_row(), self._by_column()
        if by_row is None or by_column is None:
            return by_column if by_row is None else by_row
        return by_row * by_column

    def pull_total(self, states: Tensor, grads: Tensor) -> None:
        """Give both gates the gradients of their totals."""
        by_row, by_column = self._by_row(), self._by_column()
        if by_row is None and by_column is None:
            return
        products = states[:-1] * grads[1:]  # [N, BH, K, V]
        if by_row is not None:
            of_rows = products if by_column is None else products * by_column
            self.rows.pull_total(of_rows.sum_to_size(by_row.shape).flatten(0, 1).mT)
        if by_column is not None:
            of_columns = products if by_row is None else products * by_row
            self.columns.pull_total(of_columns.sum_to_size(by_column.shape).flatten(0, 1))

    def _by_row(self) -> Tensor | None:
        total = self.rows.total
        return None if total is None else total.view(self.chunks, -1, total.shape[2], 1)

    def _by_column(self) -> Tensor | None:
        total = self.columns.total
        return None if total is None else total.view(self.chunks, -1, 1, total.shape[2])


def carry_states(writes: Tensor, total: Tensor | None, initial_state: Tensor | None) -> Tensor:
    """S_{n+1} = total_n S_n + writes_n from writes [N, BH, K, V]."""
    states = room_for_states(writes.shape, writes, initial_state)
    for n in range(writes.shape[0]):
        step(states[n], total, n, writes[n], out=states[n + 1])
    return states


def pull_states(grad_read: Tensor, total: Tensor | None, grad_final: Tensor | None) -> Tensor:
    """The gradients of all states, [N + 1, ...]; from the second on, also those of the writes.

    grad_read: [N, BH, K, V], from what each chunk read of the state before it.
    """
    grads = room_for_grads(grad_read, grad_final)
    for n in reversed(range(grad_read.shape[0])):
        step(grads[n + 1], total, n, grad_read[n], out=grads[n])
    return grads


def step(state: Tensor, total: Tensor | None, n: int, write: Tensor, out: Tensor) -> None:
    """out = total_n * state + write."""
    if total is None:
        torch.add(state, write, out=out)
    else:
        torch.addcmul(write, state, total[n], out=out)


def room_for_states(shape: tuple[int, ...], like: Tensor, initial_state: Tensor | None) -> Tensor:
    """From the shape [N, BH, K, V], [N + 1, BH, K, V] with the initial state in place."""
    states = like.new_empty(shape[0] + 1, *shape[1:])
    states[0] = 0 if initial_state is None else initial_state
    return states


def room_for_grads(grad_read: Tensor, grad_final: Tensor | None) -> Tensor:
    """[N + 1, BH, K, V] with the final state's gradient in place."""
    grads = grad_read.new_empty(grad_read.shape[0] + 1, *grad_read.shape[1:])
    grads[-1] = 0 if grad_final is None else grad_final
    return grads
