"""What a gate may ask of a candidate: the one view through which every gate sees a mixer.

The product's probe talks to a sandboxed child; tests use one in their own process. A probe holds
one mixer and keeps that instance for all its calls, so that state hidden between them is seen. At
initialisation its parameters were jittered by seeded noise, so that a gate initialised at zero is
alive; a trained model's layer is taken as training left it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp64"]
DTYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


class ProbeFailed(Exception):
    """The candidate did not answer: it raised, hung, ran out of memory or broke the protocol.

    `kind` is "raised", "timeout", "stalled", "oom", "crashed" or "protocol"; `is_final` says that
    the candidate's process is gone and no probe on it can answer again. A fault of the machinery is
    never reported this way: it propagates as its own exception, not booked as the candidate's.
    """

    def __init__(self, kind: str, message: str, *, is_final: bool = False) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.is_final = is_final


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeFacts:
    """What trusted code knows about the mixer. `seq_len` is the training length.

    `precision` is what the probe computes in; `chunk_sizes` are sizes that its source names;
    `can_stream` is False for a class whose convention has no streaming.
    """

    d_model: int
    seq_len: int
    n_layers: int
    layer_index: int
    is_reference: bool = False
    can_stream: bool = True
    chunk_sizes: tuple[int, ...] = ()
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True, slots=True)
class StateTensor:
    """One tensor of a state: `dtype` as in "float32", `n_bytes` of its elements alone."""

    shape: tuple[int, ...]
    dtype: str
    n_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PieceState:
    """The state as the mixer returned it after one piece, measured before it is cloned.

    `storage_bytes` adds up the distinct storages behind the tensors: a view counts all of its own.
    """

    tensors: Mapping[str, StateTensor]
    storage_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """`y` joins the pieces' outputs over time; `states` holds one entry a piece."""

    y: Tensor
    states: tuple[PieceState, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradient:
    """The gradient of one parameter; `norm` is None when none arrived, nan or inf if not finite."""

    is_finite: bool
    norm: float | None
    numel: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One forward and backward in a given precision; tensors in float32."""

    y: Tensor  # [B, T, D]
    x_gradient: Tensor  # [B, T, D]
    gradients: Mapping[str, Gradient]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldTensor:
    """A tensor that the mixer holds between calls; `numel` of all its storage.

    `kind`: a registered parameter or buffer, or a plain attribute somewhere in reach of the mixer.
    `digest` changes with the values of a buffer.
    """

    kind: Literal["parameter", "buffer", "attribute"]
    numel: int
    requires_grad: bool
    digest: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """What a mixer holds, by name: before its first call, and now."""

    at_first: Mapping[str, HeldTensor]
    now: Mapping[str, HeldTensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseCost:
    """Counted over one phase. `bookkeeping`: elements that autograd moved for indexing alone."""

    calls: int
    elements: int
    multiply_adds: int
    bookkeeping: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteCost:
    """What one operator did at one place of the code."""

    elements: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One sequence of some length, counted in the child, timed from outside of it.

    `phases`: "forward", "backward" (train mode) and "evaluation". `sites`: by phase, operator and
    place. The times are the candidate's whole process's, None where they cannot be had.
    """

    phases: Mapping[str, PhaseCost]
    sites: Mapping[tuple[str, str, str], SiteCost]
    cpu_s: float | None
    wall_s: float


class MixerProbe(Protocol):
    """Each method raises ProbeFailed when the candidate does not answer; tensors come unchecked."""

    @property
    def facts(self) -> ProbeFacts: ...

    def forward(self, x: Tensor, train: bool = False) -> Tensor:
        """The mixer's answer to x [B, T, D] with no state before it, computed without gradients.

        In eval mode the global random numbers run on from call to call, so noise shows; in train
        mode they are seeded alike before every call, so dropout draws one mask for one shape.
        """
        ...

    def stream(self, x: Tensor, lengths: Sequence[int]) -> StreamResult:
        """x [B, T, D] fed in eval mode as consecutive pieces of `lengths` (their sum is T).

        The first piece gets no state, each next one a clone of the state the piece before returned.
        A state that is not a flat dict of tensors is ProbeFailed("protocol").
        """
        ...

    def gradients(self, x: Tensor, cotangent: Tensor) -> Mapping[str, Gradient]:
        """By parameter name, the gradients of sum(y * cotangent) in train mode, seeded as above."""
        ...

    def step(self, x: Tensor, cotangent: Tensor, precision: Precision) -> Step:
        """The same with y and x's gradient, in `precision` whatever the probe's own is."""
        ...

    def inventory(self) -> Inventory:
        """What the mixer holds between calls."""
        ...

    def cost(self, length: int) -> Cost:
        """Counts of forward and backward on one random sequence of `length` tokens."""
        ...

    def in_float64(self) -> MixerProbe:
        """A probe of copies of the mixer, one a call, that compute in float64 where they can."""
        ...
