"""Pieces of any size give the same answer as the whole, with a state of constant form and size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ...config import GateConfig
from ..results import GateResult
from .compare import OTHER_FORM, ask, draw, find_flaw, largest_difference, tolerated
from .probe import MixerProbe, PieceState, ProbeFacts, ProbeFailed, StateTensor, StreamResult

_N_ROWS = 2


def streaming(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """The whole at once, by single tokens first, and from a long piece on, against `forward`.

    A reference mixer's cache may grow: for it alone shapes and bytes are not compared.
    """
    if not probe.facts.can_stream:
        reason = "Its convention has no streaming: the sequence comes whole."
        return GateResult(gate="streaming", passed=None, reason=reason)
    limit = tolerated(probe, config, OTHER_FORM)
    x = draw(generator, _N_ROWS, probe.facts.seq_len, probe.facts.d_model)
    whole = ask(probe, x)
    first: PieceState | None = None
    largest = 0.0
    for lengths in _plans(probe.facts.seq_len, generator):
        result = _stream(probe, x, lengths)
        first = first or result.states[0]
        for n_seen, state in zip(accumulate(lengths), result.states, strict=True):
            if change := _state_change(first, state, probe.facts):
                evidence = {"pieces": lengths, "tokens_seen": n_seen}
                return _failed(f"After {_tokens(n_seen)} {change}.", evidence)
        gap = largest_difference(whole, result.y, precision=probe.facts.precision)
        largest = max(largest, gap.relative)
        if gap.relative > limit:
            reason = (
                f"Fed in pieces of {_shown(lengths)} tokens, the output at position {gap.position} "
                f"is off by {gap.relative:.2g} of its RMS: the state does not carry the whole past."
            )
            return _failed(reason, {"pieces": lengths, "limit": limit, **gap.evidence()})
    assert first is not None
    evidence = {"limit": limit, "relative": largest, **_size(first)}
    return GateResult(gate="streaming", passed=True, evidence=evidence)


def _plans(seq_len: int, generator: torch.Generator) -> Iterator[list[int]]:
    """How the sequence is cut: not at all, single tokens first, a long piece first."""
    yield [seq_len]
    yield [1, 1, *random_pieces(seq_len - 2, generator)]
    long_piece = int(torch.randint(seq_len // 3, seq_len // 2, (), generator=generator))
    yield [long_piece, 1, *random_pieces(seq_len - long_piece - 1, generator)]


def _stream(probe: MixerProbe, x: Tensor, lengths: list[int]) -> StreamResult:
    result = probe.stream(x, lengths)
    if flaw := find_flaw(result.y, x):
        raise ProbeFailed("protocol", f"streamed, {flaw}")
    if len(result.states) != len(lengths):
        counts = f"{len(result.states)} states came back for {len(lengths)} pieces"
        raise ProbeFailed("protocol", counts)
    return result


def random_pieces(total: int, generator: torch.Generator) -> list[int]:
    """Sizes that add up to `total`: single tokens, a few, and up to a third, in equal shares."""
    sizes: list[int] = []
    tops = (1, 7, max(1, total // 3))
    while (left := total - sum(sizes)) > 0:
        top = tops[int(torch.randint(3, (), generator=generator))]
        sizes.append(min(left, 1 + int(torch.randint(top, (), generator=generator))))
    return sizes


def _state_change(first: PieceState, state: PieceState, facts: ProbeFacts) -> str | None:
    """How a state differs in form from `first`, which the whole in one piece left, or None."""
    at_once = f"after {_tokens(facts.seq_len)} at once"
    if state.tensors.keys() != first.tensors.keys():
        return (
            f"the state's keys are {sorted(state.tensors)}, but {sorted(first.tensors)} {at_once}"
        )
    for key, tensor in state.tensors.items():
        other = first.tensors[key]
        if tensor.dtype != other.dtype or (tensor.shape != other.shape and not facts.is_reference):
            return f"the state's {key!r} is {_form(tensor)}, but {_form(other)} {at_once}"
    if state.storage_bytes != first.storage_bytes and not facts.is_reference:
        held = sum(tensor.n_bytes for tensor in state.tensors.values())
        return (
            f"the state keeps {state.storage_bytes} bytes of storage alive for {held} bytes of "
            f"tensors, but {first.storage_bytes} {at_once}: clone views of longer tensors"
        )
    return None


def _size(state: PieceState) -> dict[str, Any]:
    return {"state_bytes": state.storage_bytes // _N_ROWS, "state_keys": sorted(state.tensors)}


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


def _form(tensor: StateTensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _shown(lengths: list[int]) -> str:
    sizes = ", ".join(map(str, lengths[:6]))
    return f"{sizes}, ..." if len(lengths) > 6 else sizes


def _failed(reason: str, evidence: dict[str, Any]) -> GateResult:
    return GateResult(gate="streaming", passed=False, reason=reason, evidence=evidence)
