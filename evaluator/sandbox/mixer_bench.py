"""Single mixers of a candidate, fed and measured as the gates ask: what answers a MixerProbe.

Everything here is a claim of the child's; the supervisor compares the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...search_space.contract import state_bytes
from ..gates.probe import DTYPES
from .cost_meter import measure_cost
from .inventory import held_tensors
from .protocol import Message

_PROBE_SEED = 20  # train mode draws the same dropout masks in every call

Answer = tuple[dict[str, Any], dict[str, Tensor]]


class ContractBroken(Exception):
    """The mixer returned something that is neither a tensor nor a flat dict of tensors."""


class MixerBench:
    """The mixers of some layers, by layer: made anew, or taken from a trained model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._mixers: dict[int, nn.Module] = {}
        self._held_at_first: dict[int, dict[str, Any]] = {}

    def answer(self, request: Message) -> Answer | None:
        """The reply to an operation on one mixer; None for any other operation."""
        match request.values["op"]:
            case "forward":
                return {}, {"y": self._forward(request)}
            case "stream":
                return self._stream(request)
            case "gradients":
                return self._step(request)
            case "inventory":
                layer = request.values["layer"]
                now = held_tensors(self._mixers[layer])
                return {"at_first": self._held_at_first[layer], "now": now}, {}
            case "cost":
                return self._cost(request), {}
            case _:
                return None

    def make(
        self,
        mixer_class: Callable[..., nn.Module],
        layer: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        seed: int,
        jitter: float,
    ) -> None:
        """The mixer of one layer as it initialises itself, in float32, then jittered."""
        torch.manual_seed(seed)
        mixer = mixer_class(d_model, n_heads, layer, n_layers).float().to(self._device)
        jitter_parameters(mixer, jitter, torch.Generator().manual_seed(seed))
        self.take(layer, mixer)

    def take(self, layer: int, mixer: nn.Module) -> None:
        """A layer's mixer as it is, trained."""
        self._mixers[layer] = mixer
        self._held_at_first[layer] = held_tensors(mixer)

    @torch.no_grad()
    def _forward(self, request: Message) -> Tensor:
        mixer = self._mixer(request, train=request.values["train"])
        with self._autocast(request):
            return _output(mixer(request.tensors["x"].to(self._device)))[0]

    @torch.no_grad()
    def _stream(self, request: Message) -> Answer:
        mixer = self._mixer(request, train=False)
        x = request.tensors["x"].to(self._device)
        outputs, facts = [], []
        state: dict[str, Tensor] | None = None
        with self._autocast(request):
            for piece in torch.split(x, request.values["lengths"], dim=1):
                # A clone: a view would let the mixer reach the pieces to come.
                y, state = _output(mixer(piece.clone(), state))
                outputs.append(y)
                facts.append(_state_facts(state))
                state = {name: tensor.clone() for name, tensor in state.items()}
                # Another sequence in between: a past that is kept elsewhere is now the wrong one.
                mixer(piece.flip(-1))
        return {"states": facts}, {"y": torch.cat(outputs, dim=1)}

    def _step(self, request: Message) -> Answer:
        mixer = self._mixer(request, train=True)
        mixer.zero_grad(set_to_none=True)
        x = request.tensors["x"].to(self._device).requires_grad_()
        with self._autocast(request):
            y, _ = _output(mixer(x.clone()))  # what it gets in a model is no leaf either
        torch.autograd.backward(y, request.tensors["cotangent"].to(y))
        parameters = dict(mixer.named_parameters())
        facts = {
            name: {
                "numel": p.numel(),
                "arrived": p.grad is not None,
                "is_finite": p.grad is None or bool(p.grad.isfinite().all()),
            }
            for name, p in parameters.items()
        }
        # As a tensor, for a norm may be infinite and JSON cannot say so.
        zero = torch.zeros(())
        norms = [zero if p.grad is None else p.grad.norm().cpu() for p in parameters.values()]
        tensors = {"norms": torch.stack([zero, *norms])[1:]}
        if request.values["wants_tensors"]:
            x_gradient = torch.zeros_like(x) if x.grad is None else x.grad
            tensors.update(y=y.detach(), x_gradient=x_gradient)
        return {"parameters": facts}, tensors

    def _cost(self, request: Message) -> dict[str, Any]:
        values = request.values
        mixer = self._mixer(request, train=True)
        mixer.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(values["seed"])
        shape = 1, values["length"], values["d_model"]
        x, cotangent = (torch.randn(shape, generator=generator) for _ in range(2))
        with self._autocast(request):
            x = x.to(self._device, DTYPES[values["precision"]])
            return measure_cost(mixer, x, cotangent.to(self._device))

    def _autocast(self, request: Message) -> AbstractContextManager[Any]:
        """On a CPU, too, which is slow there: training leaves it out, a check must not."""
        is_on = request.values["precision"] == "bf16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_on)

    def _mixer(self, request: Message, *, train: bool) -> nn.Module:
        if train:
            torch.manual_seed(_PROBE_SEED)
        mixer = self._mixers[request.values["layer"]].train(train)
        return deepcopy(mixer).double() if request.values["precision"] == "fp64" else mixer


@torch.no_grad()
def jitter_parameters(module: nn.Module, scale: float, generator: torch.Generator) -> None:
    """Adds noise of standard deviation `scale`, so that a gate initialised at zero is alive."""
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(noise.to(parameter), alpha=scale)


def _output(returned: object) -> tuple[Tensor, dict[str, Tensor]]:
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise ContractBroken("forward must return the pair (y, state)")
    y, state = returned
    if not _is_plain(y):
        raise ContractBroken(f"y must be a dense torch.Tensor, got {type(y).__name__}")
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise ContractBroken(f"the state must be a dict with text keys, got {type(state).__name__}")
    for name, tensor in state.items():
        if not _is_plain(tensor):
            found = type(tensor).__name__
            raise ContractBroken(f"the state's {name!r} must be a dense tensor, got {found}")
    return y, state


def _is_plain(value: object) -> bool:
    """No subclass, which could answer differently each time it is looked at, and not sparse."""
    return type(value) is Tensor and value.layout == torch.strided


def _state_facts(state: dict[str, Tensor]) -> dict[str, Any]:
    tensors = {
        name: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "n_bytes": tensor.numel() * tensor.element_size(),
        }
        for name, tensor in state.items()
    }
    return {"tensors": tensors, "storage_bytes": state_bytes([state])}
