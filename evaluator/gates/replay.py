"""The same input gives the same answer: no noise in eval mode, nothing kept between calls."""

from __future__ import annotations

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import SAME_SHAPE, ask, draw, largest_difference, tolerated
from .probe import MixerProbe


def replay(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Asks, and asks again after other input was seen in both modes, as running averages would."""
    length = min(33, probe.facts.seq_len)
    x, other = (draw(generator, 2, length, probe.facts.d_model) for _ in range(2))
    first = {train: ask(probe, x, train=train) for train in (False, True)}
    at_once = ask(probe, x)
    for train in (True, False):
        ask(probe, other, train=train)
    later = {train: ask(probe, x, train=train) for train in (False, True)}

    limit = tolerated(probe, config, SAME_SHAPE)
    comparisons = {
        "asked twice in eval mode": (first[False], at_once),
        "asked again in eval mode after other input": (first[False], later[False]),
        "asked again in train mode after other input": (first[True], later[True]),
    }
    largest = 0.0
    for when, (before, after) in comparisons.items():
        change = largest_difference(before, after, precision=probe.facts.precision)
        largest = max(largest, change.relative)
        if change.relative > limit:
            reason = (
                f"The same input, {when}, gave another answer: position {change.position} changed "
                f"by {change.relative:.2g} of its RMS. Keep nothing between calls and "
                "draw no noise in eval mode."
            )
            evidence = {"when": when, "limit": limit, **change.evidence()}
            return GateResult(gate="replay", passed=False, reason=reason, evidence=evidence)
    return GateResult(gate="replay", passed=True, evidence={"limit": limit, "relative": largest})
