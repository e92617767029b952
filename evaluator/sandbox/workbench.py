"""What a child does with a candidate: loads it, builds it, feeds it and trains it, as it is asked.

Everything it answers is a claim: the supervisor checks tensors and counts, and measures the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...search_space.backbone import Backbone, BackboneConfig
from ...search_space.contract import state_bytes
from ...search_space.loading import load_mixer_class
from ...search_space.parameters import count_parameters
from ..batches import open_batches
from ..checkpoint import (
    CHECKPOINT_IN,
    CHECKPOINT_OUT,
    WEIGHTS,
    load_weights,
    model_tensors,
    save_tensors,
)
from ..recipe import Recipe
from ..training import autocast, train
from .protocol import Message

CANDIDATE_FILE = "<mixer candidate>"  # what load_mixer_class calls it in tracebacks
_MODULE_NAME = "candidate"
_PROBE_SEED = 20  # train mode draws the same dropout masks in every call

Answer = tuple[dict[str, Any], dict[str, Tensor]]
Report = Callable[..., None]


class ContractBroken(Exception):
    """The mixer returned something that is neither a tensor nor a flat dict of tensors."""


class Workbench:
    """One candidate in one process: its class, a whole model and single mixers by layer."""

    def __init__(self, device: torch.device, data: int | None = None) -> None:
        self._device = device
        self._data = data
        self._mixer_class: type[nn.Module] | None = None
        self._model: Backbone | None = None
        self._mixers: dict[int, nn.Module] = {}

    def answer(self, request: Message, report: Report) -> Answer:
        """The values and tensors of the reply; `report(event, **values)` tells of the way there."""
        values = request.values
        match values["op"]:
            case "device":  # asked before a candidate is loaded, so believed
                return {"name": _device_name(self._device)}, {}
            case "load":
                self._mixer_class = load_mixer_class(values["source"], _MODULE_NAME)
                return {}, {}
            case "build":
                return self._build(BackboneConfig(**values["model"]), values["seed"]), {}
            case "mixer":
                return self._make_mixer(**_arguments(values)), {}
            case "forward":
                return {}, {"y": self._forward(request)}
            case "stream":
                return self._stream(request)
            case "gradients":
                return self._gradients(request)
            case "state":
                return {"bytes": [self._state_bytes(length) for length in values["lengths"]]}, {}
            case "train":
                return self._train(values, report), {}
            case "load_weights":
                load_weights(self._whole_model(), Path(WEIGHTS))
                return {}, {}
            case "hidden":
                return {}, {"hidden": self._hidden(request.tensors["tokens"], values["precision"])}
            case unknown:
                raise ValueError(f"unknown operation {unknown!r}")

    def _build(self, config: BackboneConfig, seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self._model = Backbone(config, self._loaded_class()).to(self._device)
        return {"n_params": count_parameters(self._model)}

    def _make_mixer(
        self, layer: int, d_model: int, n_heads: int, n_layers: int, seed: int, jitter: float
    ) -> dict[str, Any]:
        torch.manual_seed(seed)
        mixer = self._loaded_class()(d_model, n_heads, layer, n_layers).float().to(self._device)
        jitter_parameters(mixer, jitter, torch.Generator().manual_seed(seed))
        self._mixers[layer] = mixer
        return {}

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

    @torch.no_grad()
    def _state_bytes(self, length: int) -> int:
        """One sequence's state over all layers after `length` tokens."""
        model = self._whole_model().eval()
        _, states = model(torch.zeros(1, length, dtype=torch.int64, device=self._device))
        return state_bytes(states)

    def _train(self, values: Mapping[str, Any], report: Report) -> dict[str, Any]:
        assert self._data is not None, "training needs data"
        model = self._whole_model()
        recipe = Recipe(**values["recipe"])
        batches = open_batches(values["data"], self._data, recipe, self._device)
        resume = Path(CHECKPOINT_IN) if values["resume"] else None
        outcome = train(model, batches, recipe, Path(CHECKPOINT_OUT), resume, report)
        save_tensors(model_tensors(model), Path(WEIGHTS))
        is_cuda = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if is_cuda else None
        return {**outcome, "cuda_peak_bytes": peak}

    @torch.no_grad()
    def _hidden(self, tokens: Tensor, precision: str) -> Tensor:
        model = self._whole_model().eval()
        with autocast(self._device, precision):
            hidden: Tensor = model(tokens.to(self._device, torch.int64))[0]
        return hidden.float()

    def _loaded_class(self) -> type[nn.Module]:
        assert self._mixer_class is not None, "load comes first"
        return self._mixer_class

    def _whole_model(self) -> Backbone:
        assert self._model is not None, "build comes first"
        return self._model

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


def _device_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "op"}


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
