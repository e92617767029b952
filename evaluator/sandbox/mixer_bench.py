"""Single mixers of a candidate, fed and measured as the gates ask: what answers a MixerProbe.

Everything here is a claim of the child's; the supervisor compares the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...search_space.contract import state_bytes
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

    def answer(self, request: Message) -> Answer | None:
        """The reply to an operation on one mixer; None for any other operation."""
        match request.values["op"]:
            case "forward":
                return {}, {"y": self._forward(request)}
            case "stream":
                return self._stream(request)
            case "gradients":
                return self._gradients(request)
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
        self._mixers[layer] = mixer

    def take(self, layer: int, mixer: nn.Module) -> None:
        """A layer's mixer as it is, trained."""
        self._mixers[layer] = mixer

    @torch.no_grad()
    def _forward(self, request: Message) -> Tensor:
        mixer = self._mixer(request, train=request.values["train"])
        return _output(mixer(request.tensors["x"].to(self._device)))[0]

    @torch.no_grad()
    def _stream(self, request: Message) -> Answer:
        mixer = self._mixer(request, train=False)
        x = request.tensors["x"].to(self._device)
        outputs, facts = [], []
        state: dict[str, Tensor] | None = None
        for piece in torch.split(x, request.values["lengths"], dim=1):
            # A clone: a view would let the mixer reach the pieces to come.
            y, state = _output(mixer(piece.clone(), state))
            outputs.append(y)
            facts.append(_state_facts(state))
            state = {name: tensor.clone() for name, tensor in state.items()}
        return {"states": facts}, {"y": torch.cat(outputs, dim=1)}

    def _gradients(self, request: Message) -> Answer:
        mixer = self._mixer(request, train=True)
        mixer.zero_grad(set_to_none=True)
        y, _ = _output(mixer(request.tensors["x"].to(self._device)))
        torch.autograd.backward(y, request.tensors["cotangent"].to(self._device))
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
        return {"parameters": facts}, {"norms": torch.stack([zero, *norms])[1:]}

    def _mixer(self, request: Message, *, train: bool) -> nn.Module:
        if train:
            torch.manual_seed(_PROBE_SEED)
        return self._mixers[request.values["layer"]].train(train)


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
