"""A row's answer depends on that row alone: not on its neighbours, their order or their number."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...config import GateConfig
from ..results import GateResult
from .compare import (
    OTHER_SHAPE,
    SAME_SHAPE,
    Share,
    ask,
    draw,
    largest_difference,
    ragged_length,
    tolerated,
)
from .probe import MixerProbe

_N_ROWS = 4
_KEPT_ROW = 1  # has neighbours on both sides
_ORDER = [2, 0, 3, 1]  # no row keeps its place or its neighbours


def batch(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    largest = 0.0
    for what, answer, expected, share in _comparisons(probe, generator):
        change = largest_difference(answer, expected, precision=probe.facts.precision)
        limit = tolerated(probe, config, share)
        largest = max(largest, change.relative)
        if change.relative > limit:
            reason = (
                f"A row's answer changed by {change.relative:.2g} of its RMS when {what}: "
                "rows of a batch must not see each other."
            )
            evidence = {"what": what, "limit": limit, **change.evidence()}
            return GateResult(gate="batch", passed=False, reason=reason, evidence=evidence)
    return GateResult(gate="batch", passed=True, evidence={"relative": largest})


def _comparisons(
    probe: MixerProbe, generator: torch.Generator
) -> Iterator[tuple[str, Tensor, Tensor, Share]]:
    """What was done to the batch, the answer, what it should be, and the share of the tolerance."""
    d_model = probe.facts.d_model
    x = draw(generator, _N_ROWS, ragged_length(probe.facts.seq_len), d_model)
    others = draw(generator, _N_ROWS, x.shape[1], d_model)
    others[_KEPT_ROW] = x[_KEPT_ROW]
    kept = slice(_KEPT_ROW, _KEPT_ROW + 1)

    together = ask(probe, x)
    yield "the other rows changed", ask(probe, others)[kept], together[kept], SAME_SHAPE
    yield "the rows changed places", ask(probe, x[_ORDER]), together[_ORDER], OTHER_SHAPE
    yield "it was asked alone", ask(probe, x[kept]), together[kept], OTHER_SHAPE
    # Dropout draws by place in the batch: in train mode only a row that stays put can be compared.
    in_training, changed = (ask(probe, rows, train=True) for rows in (x, others))
    yield "the other rows changed in train mode", changed[kept], in_training[kept], SAME_SHAPE
