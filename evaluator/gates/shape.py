"""The output has the input's shape and dtype and is finite, at any length from one token on."""

from __future__ import annotations

import torch

from ...config import GateConfig
from ..results import GateResult
from .compare import draw, find_flaw
from .probe import MixerProbe


def shape(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    sizes = [(1, 1), (3, 7), (2, probe.facts.seq_len)]
    for n_rows, length in sizes:
        x = draw(generator, n_rows, length, probe.facts.d_model)
        flaw = find_flaw(probe.forward(x), x)
        if flaw is not None:
            evidence = {"n_rows": n_rows, "length": length}
            return GateResult(gate="shape", passed=False, reason=f"{flaw}.", evidence=evidence)
    return GateResult(gate="shape", passed=True, evidence={"sizes": [list(size) for size in sizes]})
