"""Checks before money is spent: each asks a mixer through a probe and judges the answers."""

from .budget import parameter_budget, rejection
from .probe import (
    Gradient,
    MixerProbe,
    PieceState,
    ProbeFacts,
    ProbeFailed,
    StateTensor,
    StreamResult,
)
from .runner import GATES, Gate, run_gates, run_gates_on_layers

__all__ = [
    "GATES",
    "Gate",
    "Gradient",
    "MixerProbe",
    "PieceState",
    "ProbeFacts",
    "ProbeFailed",
    "StateTensor",
    "StreamResult",
    "parameter_budget",
    "rejection",
    "run_gates",
    "run_gates_on_layers",
]
