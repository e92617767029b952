"""A whole model that is fed rows in pieces: its state can be sent out, and taken in elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...search_space.backbone import Backbone, State, clone_states
from ..training import autocast
from .protocol import Message

Answer = tuple[dict[str, Any], dict[str, Tensor]]
_COMPLEX = "complex "  # safetensors hold no complex numbers: they travel as pairs


class StreamBench:
    """The state of one batch of rows between two pieces of them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states: list[State] | None = None

    def answer(self, model: Backbone, request: Message) -> Answer:
        match request.values["op"]:
            case "start_stream":
                self._states = None
                return {}, {}
            case "stream_on":
                precision = request.values["precision"]
                return {}, {"hidden": self._feed(model, request.tensors["tokens"], precision)}
            case "take_state":
                return {}, _sendable(self._states or [])
            case "put_state":
                self._states = _received(request.tensors, len(model.blocks), self._device)
                return {}, {}
            case operation:
                raise ValueError(f"unknown operation {operation!r}")

    @torch.no_grad()
    def _feed(self, model: Backbone, tokens: Tensor, precision: str) -> Tensor:
        """tokens [B, t] to the hidden states [B, D] after the last of them."""
        with autocast(self._device, precision):
            hidden, states = model.eval()(tokens.to(self._device, torch.int64), self._states)
        self._states = clone_states(states)
        last: Tensor = hidden[:, -1]
        return last.float()


def _sendable(states: list[State]) -> dict[str, Tensor]:
    """Every tensor by "layer name"."""
    tensors = {}
    for layer, state in enumerate(states):
        for name, tensor in state.items():
            if tensor.is_complex():
                tensors[f"{layer} {_COMPLEX}{name}"] = torch.view_as_real(tensor.resolve_conj())
            else:
                tensors[f"{layer} {name}"] = tensor
    return tensors


def _received(tensors: Mapping[str, Tensor], n_layers: int, device: torch.device) -> list[State]:
    states: list[State] = [{} for _ in range(n_layers)]
    for place, sent in tensors.items():
        layer, _, name = place.partition(" ")
        tensor = sent.to(device)
        if name.startswith(_COMPLEX):
            name, tensor = name.removeprefix(_COMPLEX), torch.view_as_complex(tensor)
        states[int(layer)][name] = tensor
    return states
