"""The product's MixerProbe: one layer's mixer in a sandboxed child, seen through its replies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..gates.probe import (
    Gradient,
    PieceState,
    ProbeFacts,
    ProbeFailed,
    StateTensor,
    StreamResult,
)
from .failures import ChildFailed, printable
from .handle import Child
from .protocol import Message

_JITTER = 0.05
_SLACK_BYTES = 1 << 16


class RemoteProbe:
    """Makes the layer's mixer in a child that has loaded the source. Raises ProbeFailed alone."""

    def __init__(self, child: Child, facts: ProbeFacts, *, n_heads: int, seed: int) -> None:
        self._child = child
        self._facts = facts
        sizes = {"d_model": facts.d_model, "n_heads": n_heads, "n_layers": facts.n_layers}
        with _candidate_failures():
            self._call("mixer", {**sizes, "seed": seed, "jitter": _JITTER}, {})

    @property
    def facts(self) -> ProbeFacts:
        return self._facts

    def forward(self, x: Tensor, train: bool = False) -> Tensor:
        with _candidate_failures():
            return self._call("forward", {"train": train}, {"x": x}).tensors["y"]

    def stream(self, x: Tensor, lengths: Sequence[int]) -> StreamResult:
        with _candidate_failures():
            reply = self._call("stream", {"lengths": list(lengths)}, {"x": x})
            states = tuple(_piece_state(facts) for facts in reply.values["states"])
            return StreamResult(y=reply.tensors["y"], states=states)

    def gradients(self, x: Tensor, cotangent: Tensor) -> Mapping[str, Gradient]:
        with _candidate_failures():
            reply = self._call("gradients", {}, {"x": x, "cotangent": cotangent})
            parameters = reply.values["parameters"]
            norms = reply.tensors["norms"].tolist()
            return {
                printable(name): _gradient(facts, norm)
                for (name, facts), norm in zip(parameters.items(), norms, strict=True)
            }

    def _call(self, op: str, values: dict[str, Any], tensors: dict[str, Tensor]) -> Message:
        expected = sum(2 * tensor.nbytes for tensor in tensors.values())
        values = {**values, "layer": self._facts.layer_index}
        return self._child.call(op, values, tensors, reply_bytes=expected + _SLACK_BYTES)


@contextmanager
def _candidate_failures() -> Iterator[None]:
    """A child that fails, and replies that lack what they must hold, as ProbeFailed."""
    try:
        yield
    except ChildFailed as failure:
        raise ProbeFailed(failure.kind, failure.message) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeFailed("protocol", f"a malformed reply ({error!r})") from None


def _piece_state(facts: dict[str, Any]) -> PieceState:
    tensors = {
        printable(name): StateTensor(
            shape=tuple(map(int, tensor["shape"])),
            dtype=printable(tensor["dtype"]),
            n_bytes=int(tensor["n_bytes"]),
        )
        for name, tensor in facts["tensors"].items()
    }
    return PieceState(tensors=tensors, storage_bytes=int(facts["storage_bytes"]))


def _gradient(facts: dict[str, Any], norm: float) -> Gradient:
    arrived = bool(facts["arrived"])
    return Gradient(
        is_finite=bool(facts["is_finite"]),
        norm=norm if arrived else None,
        numel=int(facts["numel"]),
    )
