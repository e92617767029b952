"""The gates once more, on the mixers as training left them: what began at zero has opened."""

from __future__ import annotations

import random

from ..config import RunConfig
from .examination import probe_facts
from .gates.probe import Precision, ProbeFailed
from .gates.runner import TRAINED_GATES, run_gates_on_layers
from .results import GateResult
from .sandbox.handle import Child
from .sandbox.remote_probe import RemoteProbe
from .sizing import INIT_SEED
from .subject import Subject

_GATES = {name: gate for name, gate in TRAINED_GATES.items() if name != "prefix"}


def run_trained_gates(
    child: Child, config: RunConfig, subject: Subject, precision: Precision
) -> tuple[GateResult, ...]:
    """Gates on the first and the last mixer of the model that `child` holds the weights of.

    They end with the first failure. Prefixes are left out: the score was compared with them, on
    these weights and the whole model.
    """
    try:
        probes = [
            RemoteProbe(
                child,
                probe_facts(config, subject, layer),
                n_heads=config.model.n_heads,
                seed=INIT_SEED,
                precision=precision,
                is_trained=True,
            )
            for layer in subject.probed_layers(config.model.n_layers)
        ]
    except ProbeFailed as failure:
        reason = f"The trained layer cannot be asked ({failure.kind}): {failure.message}."
        return (GateResult(gate="build", passed=False, reason=reason, stage="trained"),)
    # The inputs' seed is new each time: no candidate can have seen them.
    seed = random.SystemRandom().getrandbits(31)
    found = run_gates_on_layers(probes, config.gates, seed, _GATES, stage="trained")
    return tuple(found)
