"""Checks before money is spent: each asks a mixer through a probe and judges the answers."""

from .budget import parameter_budget, rejection
from .probe import (
    Cost,
    Gradient,
    HeldTensor,
    Inventory,
    MixerProbe,
    PhaseCost,
    PieceState,
    Precision,
    ProbeFacts,
    ProbeFailed,
    SiteCost,
    StateTensor,
    Step,
    StreamResult,
)
from .runner import (
    DEVICE_GATES,
    GATES,
    TRAINED_GATES,
    Gate,
    run_gates,
    run_gates_on_layers,
)

__all__ = [
    "DEVICE_GATES",
    "GATES",
    "TRAINED_GATES",
    "Cost",
    "Gate",
    "Gradient",
    "HeldTensor",
    "Inventory",
    "MixerProbe",
    "PhaseCost",
    "PieceState",
    "Precision",
    "ProbeFacts",
    "ProbeFailed",
    "SiteCost",
    "StateTensor",
    "Step",
    "StreamResult",
    "parameter_budget",
    "rejection",
    "run_gates",
    "run_gates_on_layers",
]
