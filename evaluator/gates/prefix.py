"""The answer to a prefix does not depend on how long the whole is: f(x[:n]) equals f(x)[:n]."""

from __future__ import annotations

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import OTHER_SHAPE, ask, draw, largest_difference, tolerated
from .probe import MixerProbe


def prefix(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Odd lengths, from one token to just under the training length, in eval mode."""
    limit = tolerated(probe, config, OTHER_SHAPE)
    seq_len = probe.facts.seq_len
    x = draw(generator, 2, seq_len, probe.facts.d_model)
    whole = ask(probe, x)
    largest = 0.0
    for length in sorted({n for n in (1, 3, 17, 33, 65, (seq_len - 2) | 1) if n < seq_len}):
        change = largest_difference(
            whole[:, :length],
            ask(probe, x[:, :length]),
            like=whole,
            precision=probe.facts.precision,
        )
        largest = max(largest, change.relative)
        if change.relative > limit:
            reason = (
                f"The output at position {change.position} is another by {change.relative:.2g} of "
                f"its RMS when the sequence ends after {length} tokens instead of {seq_len}: "
                "it depends on the sequence's length."
            )
            evidence = {
                "prefix": length,
                "length": seq_len,
                "limit": limit,
                **change.evidence(),
            }
            return GateResult(gate="prefix", passed=False, reason=reason, evidence=evidence)
    return GateResult(gate="prefix", passed=True, evidence={"limit": limit, "relative": largest})
