"""No answer depends on a later token: every later token is replaced and nothing before may move."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...config import GateConfig
from ..results import GateResult
from .compare import (
    OTHER_TOKENS,
    Difference,
    ask,
    draw,
    largest_difference,
    ragged_length,
    tolerated,
)
from .probe import MixerProbe, ProbeFacts

_CHUNK_SIZES = (16, 32, 64, 128, 256)
_SHORT_LENGTH = 5
_RANDOM_CUTS = 2
_MAX_CUTS = 48  # rows of one batch


def causality(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Cuts around every usual chunk size and every one that the source names, in both modes.

    At a short, a ragged and the training length, and with a few cuts just beyond twice that. Later
    tokens are replaced by independent ones, never negated: what depends on their squares or their
    norm would not notice a sign. Each cut is one row of a batch, after the batch gate has shown
    that rows do not see each other.
    """
    limit = tolerated(probe, config, OTHER_TOKENS)
    largest = 0.0
    n_cuts = {}
    for length, positions in _plans(probe.facts, generator):
        cuts = torch.tensor(positions)
        n_cuts[str(length)] = len(positions)
        x, replacement = (draw(generator, len(cuts), length, probe.facts.d_model) for _ in range(2))
        is_kept = torch.arange(length) <= cuts[:, None]  # [cuts, T]
        changed = torch.where(is_kept[..., None], x, replacement)
        for train in (False, True):
            move = _largest_move(probe, x, changed, is_kept, train)
            largest = max(largest, move.relative)
            if move.relative > limit:
                return _leak(move, length, int(cuts[move.row]), train, limit)
    evidence = {"limit": limit, "relative": largest, "cuts": n_cuts}
    return GateResult(gate="causality", passed=True, evidence=evidence)


def _plans(facts: ProbeFacts, generator: torch.Generator) -> Iterator[tuple[int, list[int]]]:
    """Lengths, and the last position that each row keeps."""
    for length in sorted({_SHORT_LENGTH, ragged_length(facts.seq_len), facts.seq_len}):
        yield length, cut_positions(length, facts.chunk_sizes, generator)
    longer = 2 * facts.seq_len + 1
    yield longer, [facts.seq_len // 2, facts.seq_len + 7, 2 * facts.seq_len - 1]


def cut_positions(
    length: int, chunk_sizes: tuple[int, ...], generator: torch.Generator
) -> list[int]:
    """Both sides of every chunk's edge, a spread over the length, and a few at random."""
    sizes = sorted({*_CHUNK_SIZES, *chunk_sizes})
    edges = [cut for size in sizes for cut in (size - 1, size)]
    spread = [0, 1, 7, length // 4, length // 2, length - 2]
    random = torch.randint(length - 1, (_RANDOM_CUTS,), generator=generator).tolist()
    cuts = [cut for cut in (*spread, *random, *edges) if 0 <= cut <= length - 2]
    return sorted(list(dict.fromkeys(cuts))[:_MAX_CUTS])


def _largest_move(
    probe: MixerProbe, x: Tensor, changed: Tensor, is_kept: Tensor, train: bool
) -> Difference:
    before = ask(probe, x, train=train)
    after = ask(probe, changed, train=train)
    return largest_difference(before, after, where=is_kept, precision=probe.facts.precision)


def _leak(move: Difference, length: int, cut: int, train: bool, limit: float) -> GateResult:
    mode = "train" if train else "eval"
    reason = (
        f"The output at position {move.position} moved by {move.relative:.2g} of its RMS when only "
        f"tokens after position {cut} of {length} were replaced ({mode} mode): it sees the future."
    )
    evidence = {"length": length, "cut": cut, "mode": mode, "limit": limit, **move.evidence()}
    return GateResult(gate="causality", passed=False, reason=reason, evidence=evidence)
