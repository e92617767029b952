"""What a gate may ask of a candidate: the one view through which every gate sees a mixer.

The product's probe talks to a sandboxed child; tests use one in their own process. A probe holds
one mixer in float32 whose parameters were jittered by seeded noise, so that a gate initialised at
zero is alive, and keeps that instance for all its calls, so that state hidden between them is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class ProbeFailed(Exception):
    """The candidate did not answer: it raised, hung, ran out of memory or broke the protocol.

    `kind` is "raised", "timeout", "oom", "crashed" or "protocol". A fault of the machinery is never
    reported this way: it propagates as its own exception and is not booked as the candidate's.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeFacts:
    """What trusted code knows about the mixer. `seq_len` is the training length."""

    d_model: int
    seq_len: int
    n_layers: int
    layer_index: int
    is_reference: bool = False


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
