"""The writes of the delta rule: each token's correction depends on those before it.

Per chunk, with strengths b: (I + diag(b) stril(scores)) U = diag(b) (values - erase S_n), then
S_{n+1} = total_n S_n + keys^T U + writes_n (the WY form of arXiv 2406.06484). The triangular
system is inverted for all chunks at once; only the products with S_n wait for each other.

Where columns decay (gates c, in the words of `gates`), each has a system of its own:
    U + c.reading(diag(b) stril(scores), U) = diag(b) (values - c.entering(erase S_n))
and keys^T c.leaving(U) is added to the state. The systems differ by factors exp(G[t] - G[s]) alone,
so one inverse solves all of them: U = c.reading(inverse, the right side).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .states import StateDecay, room_for_grads, room_for_states


@dataclass(frozen=True, slots=True)
class Corrections:
    """What `correct` was given and found, as `pull` needs it. M = N * BH chunks."""

    scores: Tensor  # [M, C, C]
    strength: Tensor | None  # [M, C, 1]; None: all 1
    erase: Tensor  # [M, C, K]
    values: Tensor  # [M, C, V]
    keys: Tensor  # [M, C, K]
    decay: StateDecay
    inverse: Tensor  # [M, C, C]
    from_state: Tensor  # [M, C, K]: U = ... - entering(from_state S_n)
    written: Tensor  # U [M, C, V]
    states: Tensor  # [N + 1, BH, K, V]


@dataclass(frozen=True, slots=True)
class CorrectionGrads:
    scores: Tensor
    strength: Tensor | None
    erase: Tensor
    values: Tensor
    keys: Tensor
    states: Tensor  # [N + 1, BH, K, V]


def correct(
    scores: Tensor,
    strength: Tensor | None,
    erase: Tensor,
    values: Tensor,
    keys: Tensor,
    decay: StateDecay,
    initial_state: Tensor | None,
    writes: Tensor | None = None,  # [N, BH, K, V]
) -> Corrections:
    inverse = _inverse_of_unit_lower(scores if strength is None else scores * strength)
    weighted = inverse if strength is None else inverse * strength.mT
    chunks, columns, total = decay.chunks, decay.columns, decay.total()
    written, from_state = columns.reading(weighted, values), torch.bmm(weighted, erase)
    each_u, each_read, each_key = (_by_chunk(x, chunks) for x in (written, from_state, keys))
    enter, leave = _factors(columns.enter, chunks), _factors(columns.leave, chunks)
    shape = chunks, keys.shape[0] // chunks, keys.shape[-1], values.shape[-1]
    states = room_for_states(shape, keys, initial_state)
    for n in range(chunks):
        _add_product(each_u[n], each_read[n], states[n], enter[n], sign=-1)
        kept = states[n] if total is None else states[n] * total[n]
        torch.baddbmm(kept, each_key[n].mT, _times(each_u[n], leave[n]), out=states[n + 1])
        if writes is not None:
            states[n + 1] += writes[n]
    return Corrections(
        scores, strength, erase, values, keys, decay, inverse, from_state, written, states
    )


def pull(
    c: Corrections, grad_u: Tensor, grad_read: Tensor, grad_final: Tensor | None
) -> CorrectionGrads:
    """From the gradients of U (overwritten), of what was read of each state, of the final state.

    Those of the states from the second on are also those of the writes. The columns' gates are
    given theirs, but for that of the total.
    """
    chunks, columns, total = c.decay.chunks, c.decay.columns, c.decay.total()
    each_u, each_read, each_key = (_by_chunk(x, chunks) for x in (grad_u, c.from_state, c.keys))
    enter, leave = _factors(columns.enter, chunks), _factors(columns.leave, chunks)
    grads = room_for_grads(grad_read, grad_final)
    for n in reversed(range(chunks)):
        _add_product(each_u[n], each_key[n], grads[n + 1], leave[n], sign=1)
        kept = grads[n + 1] if total is None else grads[n + 1] * total[n]
        of_product = _times(each_u[n], enter[n])
        torch.baddbmm(grad_read[n], each_read[n].mT, of_product, alpha=-1, out=grads[n])
        grads[n] += kept
    before, after = c.states[:-1].flatten(0, 1), grads[1:].flatten(0, 1)
    of_right = columns.transposed_reading(c.inverse, grad_u)  # of diag(b) (values - erase S)
    if columns.total is None:
        of_lower, of_erased = torch.bmm(of_right, c.written.mT), of_right
    else:
        of_lower, of_erased = _pull_columns(c, of_right, before, after)
    of_lower = of_lower.neg_().tril_(-1)  # of diag(b) stril(scores)
    of_read = torch.bmm(of_erased, before.mT).neg_()
    of_strength = None
    if c.strength is not None:
        of_strength = (of_right * c.values).sum(-1, keepdim=True)
        of_strength += (of_read * c.erase).sum(-1, keepdim=True)
        of_strength += (of_lower * c.scores).sum(-1, keepdim=True)
        for each in (of_lower, of_read, of_right):
            each.mul_(c.strength)
    return CorrectionGrads(
        scores=of_lower,
        strength=of_strength,
        erase=of_read,
        values=of_right,
        keys=torch.bmm(columns.leaving(c.written), after.mT),
        states=grads,
    )


def _pull_columns(
    c: Corrections, of_right: Tensor, before: Tensor, after: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of -diag(b) scores, right below the diagonal, and of -diag(b) erase S."""
    columns = c.decay.columns
    minus = -1.0 if c.strength is None else c.strength.neg()
    columns.pull_leaving(torch.bmm(c.keys, after), c.written)
    of_lower, _ = columns.pull_reading(of_right, c.scores * minus, c.written)
    return of_lower, columns.pull_entering(of_right.clone(), torch.bmm(c.erase, before) * minus)


def _add_product(onto: Tensor, a: Tensor, b: Tensor, factor: Tensor | None, sign: int) -> None:
    """onto += sign * factor * (a b)."""
    if factor is None:
        onto.baddbmm_(a, b, alpha=sign)
    else:
        onto.addcmul_(torch.bmm(a, b), factor, value=sign)


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _factors(x: Tensor | None, chunks: int) -> Sequence[Tensor | None]:
    """Each chunk's; None stands for 1."""
    return [None] * chunks if x is None else _by_chunk(x, chunks).unbind()


def _by_chunk(x: Tensor, chunks: int) -> Tensor:
    return x.view(chunks, -1, *x.shape[1:])


def _inverse_of_unit_lower(lower: Tensor) -> Tensor:
    """(I + L)^-1 for the part L of `lower` below the diagonal.

    Half the cost of solving for the right-hand sides on a CPU, and the backward pass needs it too.
    """
    identity = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    inverse: Tensor = torch.linalg.solve_triangular(
        lower, identity.expand_as(lower), upper=False, unitriangular=True
    )
    return inverse
