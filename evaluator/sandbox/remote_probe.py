"""The product's MixerProbe: one layer's mixer in a sandboxed child, seen through its replies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..gates.probe import (
    DTYPES,
    Cost,
    Gradient,
    HeldTensor,
    Inventory,
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
from .cpu_time import process_cpu_s
from .failures import ChildFailed, printable
from .handle import Child
from .protocol import Message

_JITTER = 0.05
_SLACK_BYTES = 1 << 16
_SHOWN_CHARS = 160
_COST_SEED = 0
_PHASES = ("forward", "backward", "evaluation")


class RemoteProbe:
    """Asks a child that has loaded the source. Raises ProbeFailed alone.

    Makes the layer's mixer, jittered; with `is_trained` it takes the layer of the model that the
    child has built and loaded the weights of. With `precision` "bf16" x goes in as bfloat16, under
    autocast, and must come back so, with "fp64" as float64; gates get float32.
    """

    def __init__(
        self,
        child: Child,
        facts: ProbeFacts,
        *,
        n_heads: int,
        seed: int,
        precision: Precision = "fp32",
        is_trained: bool = False,
    ) -> None:
        self._child = child
        self._facts = replace(facts, precision=precision)
        sizes = {"d_model": facts.d_model, "n_heads": n_heads, "n_layers": facts.n_layers}
        with _candidate_failures():
            if is_trained:
                self._call("trained_mixer", {}, {})
            else:
                self._call("mixer", {**sizes, "seed": seed, "jitter": _JITTER}, {})

    @property
    def facts(self) -> ProbeFacts:
        return self._facts

    def forward(self, x: Tensor, train: bool = False) -> Tensor:
        with _candidate_failures():
            y = self._feed("forward", {"train": train}, {"x": x}).tensors["y"]
            return _given_back(y, self._facts.precision)

    def stream(self, x: Tensor, lengths: Sequence[int]) -> StreamResult:
        with _candidate_failures():
            reply = self._feed("stream", {"lengths": list(lengths)}, {"x": x})
            states = tuple(_piece_state(facts) for facts in reply.values["states"])
            y = _given_back(reply.tensors["y"], self._facts.precision)
            return StreamResult(y=y, states=states)

    def gradients(self, x: Tensor, cotangent: Tensor) -> Mapping[str, Gradient]:
        tensors = {"x": x, "cotangent": cotangent}
        with _candidate_failures():
            return _gradients(self._feed("gradients", {"wants_tensors": False}, tensors))

    def step(self, x: Tensor, cotangent: Tensor, precision: Precision) -> Step:
        tensors = {"x": x, "cotangent": cotangent}
        with _candidate_failures():
            reply = self._feed("gradients", {"wants_tensors": True}, tensors, precision)
            y, x_gradient = reply.tensors["y"], reply.tensors["x_gradient"]
            if not y.shape == x_gradient.shape == x.shape:
                raise ValueError(f"y {list(y.shape)} and its gradient {list(x_gradient.shape)}")
            return Step(
                y=_given_back(y, precision),
                x_gradient=_given_back(x_gradient, precision),
                gradients=_gradients(reply),
            )

    def inventory(self) -> Inventory:
        with _candidate_failures():
            values = self._call("inventory", {}, {}).values
            return Inventory(at_first=_held(values["at_first"]), now=_held(values["now"]))

    def cost(self, length: int) -> Cost:
        sizes = {"length": length, "d_model": self._facts.d_model, "seed": _COST_SEED}
        with _candidate_failures():
            started, cpu_s = time.perf_counter(), process_cpu_s(self._child.process)
            values = self._feed("cost", sizes, {}).values
            wall_s, later_s = time.perf_counter() - started, process_cpu_s(self._child.process)
            used_s = None if cpu_s is None or later_s is None else later_s - cpu_s
            return _cost(values, used_s, wall_s)

    def in_float64(self) -> RemoteProbe:
        probe = copy(self)
        probe._facts = replace(self._facts, precision="fp64")
        return probe

    def _feed(
        self,
        op: str,
        values: dict[str, Any],
        tensors: dict[str, Tensor],
        precision: Precision | None = None,
    ) -> Message:
        """A call that computes, in the probe's own precision if none is given."""
        precision = precision or self._facts.precision
        tensors = {name: tensor.to(DTYPES[precision]) for name, tensor in tensors.items()}
        return self._call(op, {**values, "precision": precision}, tensors)

    def _call(self, op: str, values: dict[str, Any], tensors: dict[str, Tensor]) -> Message:
        expected = sum(4 * tensor.numel() * 2 for tensor in tensors.values())
        values = {**values, "layer": self._facts.layer_index}
        return self._child.call(op, values, tensors, reply_bytes=expected + _SLACK_BYTES)


@contextmanager
def _candidate_failures() -> Iterator[None]:
    """A child that fails, and replies that lack what they must hold, as ProbeFailed."""
    try:
        yield
    except ChildFailed as failure:
        is_final = failure.kind != "raised"  # any other has ended the process
        raise ProbeFailed(failure.kind, failure.message, is_final=is_final) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeFailed("protocol", f"a malformed reply ({error!r})") from None


def _given_back(y: Tensor, precision: Precision) -> Tensor:
    """In float32 what came back in the dtype that was sent; another dtype is the mixer's fault.

    In float32 the gates look at the dtype themselves.
    """
    if precision == "fp32":
        return y
    if y.dtype != DTYPES[precision]:
        found, sent = (str(dtype).removeprefix("torch.") for dtype in (y.dtype, DTYPES[precision]))
        raise ProbeFailed("protocol", f"forward returned {found} for x of {sent}")
    return y.float()


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


def _gradients(reply: Message) -> dict[str, Gradient]:
    parameters = reply.values["parameters"]
    norms = reply.tensors["norms"].tolist()
    return {
        printable(name): _gradient(facts, norm)
        for (name, facts), norm in zip(parameters.items(), norms, strict=True)
    }


def _gradient(facts: dict[str, Any], norm: float) -> Gradient:
    arrived = bool(facts["arrived"])
    return Gradient(
        is_finite=bool(facts["is_finite"]),
        norm=norm if arrived else None,
        numel=int(facts["numel"]),
    )


def _held(listed: dict[str, dict[str, Any]]) -> dict[str, HeldTensor]:
    return {
        printable(name): HeldTensor(
            kind=facts["kind"],
            numel=_count(facts["numel"]),
            requires_grad=bool(facts["requires_grad"]),
            digest=facts["digest"],
        )
        for name, facts in listed.items()
    }


def _cost(values: dict[str, Any], cpu_s: float | None, wall_s: float) -> Cost:
    phases = {
        name: PhaseCost(
            calls=_count(counts["calls"]),
            elements=_count(counts["elements"]),
            multiply_adds=_count(counts["multiply_adds"]),
            bookkeeping=_count(counts["bookkeeping"]),
            peak_bytes=_count(counts["peak_bytes"]),
        )
        for name, counts in ((name, values["phases"][name]) for name in _PHASES)
    }
    sites: dict[tuple[str, str, str], SiteCost] = {}
    for phase, operator, where, elements, multiply_adds in values["sites"]:
        key = printable(phase), printable(operator), printable(where)[:_SHOWN_CHARS]
        before = sites.get(key, SiteCost(elements=0, multiply_adds=0))
        sites[key] = SiteCost(
            elements=before.elements + _count(elements),
            multiply_adds=before.multiply_adds + _count(multiply_adds),
        )
    return Cost(phases=phases, sites=sites, cpu_s=cpu_s, wall_s=wall_s)


def _count(claim: object) -> int:
    if type(claim) is not int or claim < 0:
        raise ValueError(f"{claim!r} where a count belongs")
    return claim
