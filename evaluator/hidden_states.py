"""What a child is asked for in scoring, and checked as it comes back: hidden states, and no more.

Whole rows at once, or a stream that sends the next piece only when the one before is answered.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .sandbox.handle import Child
from .sandbox.protocol import MAX_TENSOR_BYTES
from .stopped import TrialStopped, stops_on_failure

_SLACK_BYTES = 1 << 16
_MAX_STATE_TENSORS = 4096
_MAX_NAME_CHARS = 128

Form = dict[str, tuple[torch.Size, torch.dtype]]


def ask_hidden(
    child: Child, tokens: Tensor, width: int, precision: str, *, train: bool = False
) -> Tensor:
    """One checked reply: hidden states [B, T, D] of tokens [B, T]; raises TrialStopped."""
    values = {"precision": precision, "train": train}
    return _ask(child, "hidden", values, tokens, (*tokens.shape, width))


class ModelStream:
    """A whole model that reads its rows in pieces and carries its state between them."""

    def __init__(self, child: Child, width: int, precision: str) -> None:
        self._child, self._width, self._precision = child, width, precision

    def start(self) -> None:
        """Before the first token of new rows."""
        with stops_on_failure("scoring"):
            self._child.call("start_stream")

    def feed(self, tokens: Tensor) -> Tensor:
        """tokens [B, t >= 1] that come next, to the hidden states [B, D] after the last of them."""
        values = {"precision": self._precision}
        return _ask(self._child, "stream_on", values, tokens, (len(tokens), self._width))

    def state(self) -> dict[str, Tensor]:
        """All that goes on: the state's tensors as they can be sent, by layer and name."""
        with stops_on_failure("scoring"):
            reply = self._child.call("take_state", reply_bytes=MAX_TENSOR_BYTES)
        names = reply.tensors.keys()
        if len(names) > _MAX_STATE_TENSORS or any(len(name) > _MAX_NAME_CHARS for name in names):
            raise TrialStopped("protocol", "scoring: a state of too many or too long names")
        return reply.tensors

    def go_on_from(self, state: Mapping[str, Tensor]) -> None:
        with stops_on_failure("scoring"):
            self._child.call("put_state", tensors=state)


def form_of(state: Mapping[str, Tensor]) -> Form:
    """Names, shapes and types: what a state holds beside its numbers, and none of it is counted."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _ask(
    child: Child, op: str, values: Mapping[str, object], tokens: Tensor, expected: tuple[int, ...]
) -> Tensor:
    reply_bytes = 4 * torch.Size(expected).numel() + _SLACK_BYTES
    with stops_on_failure("scoring"):
        reply = child.call(op, values, {"tokens": tokens}, reply_bytes=reply_bytes)
    hidden = reply.tensors.get("hidden")
    if hidden is None or hidden.shape != expected or hidden.dtype != torch.float32:
        found = None if hidden is None else f"{hidden.dtype} {list(hidden.shape)}"
        wanted = f"torch.float32 {list(expected)}"
        raise TrialStopped("protocol", f"scoring: hidden states are {found}, not {wanted}")
    if not hidden.isfinite().all():
        raise TrialStopped("diverged", "scoring: hidden states are not finite")
    return hidden
