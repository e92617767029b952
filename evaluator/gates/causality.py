"""No answer depends on a later token: every later token is replaced and nothing before may move."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import GateConfig
from ..results import GateResult
from .compare import SAME_SHAPE, Difference, ask, draw, largest_difference, ragged_length
from .probe import MixerProbe

_CHUNK_SIZES = (16, 32, 64, 128, 256)


def causality(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Cuts around every usual chunk size, at a ragged and at the training length, in both modes.

    Later tokens are replaced by independent ones, never negated: what depends on their squares or
    their norm would not notice a sign. Each cut is one row of a batch, after the batch gate has
    shown that rows do not see each other.
    """
    limit = SAME_SHAPE * config.tolerance
    seq_len = probe.facts.seq_len
    largest = 0.0
    for length in (ragged_length(seq_len), seq_len):
        cuts = torch.tensor(_cut_positions(length))
        x, replacement = (draw(generator, len(cuts), length, probe.facts.d_model) for _ in range(2))
        is_kept = torch.arange(length) <= cuts[:, None]  # [cuts, T]
        changed = torch.where(is_kept[..., None], x, replacement)
        for train in (False, True):
            move = _largest_move(probe, x, changed, is_kept, train)
            largest = max(largest, move.relative)
            if move.relative > limit:
                return _leak(move, length, int(cuts[move.row]), train, limit)
    return GateResult(gate="causality", passed=True, evidence={"limit": limit, "relative": largest})


def _largest_move(
    probe: MixerProbe, x: Tensor, changed: Tensor, is_kept: Tensor, train: bool
) -> Difference:
    before = ask(probe, x, train=train)
    after = ask(probe, changed, train=train)
    return largest_difference(before, after, where=is_kept)


def _cut_positions(length: int) -> list[int]:
    """The last position kept in each row: both sides of every chunk's edge, and spread over T."""
    edges = [cut for size in _CHUNK_SIZES for cut in (size - 1, size)]
    spread = [0, 1, 7, length // 4, length // 2, length - 2]
    return sorted({cut for cut in edges + spread if 0 <= cut <= length - 2})


def _leak(move: Difference, length: int, cut: int, train: bool, limit: float) -> GateResult:
    mode = "train" if train else "eval"
    reason = (
        f"The output at position {move.position} moved by {move.relative:.2g} of its RMS when only "
        f"tokens after position {cut} of {length} were replaced ({mode} mode): it sees the future."
    )
    evidence = {"length": length, "cut": cut, "mode": mode, "limit": limit, **move.evidence()}
    return GateResult(gate="causality", passed=False, reason=reason, evidence=evidence)
