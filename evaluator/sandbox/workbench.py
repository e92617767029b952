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
from .mixer_bench import Answer, MixerBench
from .protocol import Message

CANDIDATE_FILE = "<mixer candidate>"  # what load_mixer_class calls it in tracebacks
_MODULE_NAME = "candidate"
Report = Callable[..., None]


class Workbench:
    """One candidate in one process: its class, a whole model and single mixers by layer."""

    def __init__(self, device: torch.device, data: int | None = None) -> None:
        self._device = device
        self._data = data
        self._mixer_class: type[nn.Module] | None = None
        self._model: Backbone | None = None
        self._mixers = MixerBench(device)

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
                self._mixers.make(self._loaded_class(), **_arguments(values))
                return {}, {}
            case "trained_mixer":
                self._mixers.take(
                    values["layer"], self._whole_model().blocks[values["layer"]].mixer
                )
                return {}, {}
            case "state":
                return {"bytes": [self._state_bytes(length) for length in values["lengths"]]}, {}
            case "train":
                return self._train(values, report), {}
            case "load_weights":
                load_weights(self._whole_model(), Path(WEIGHTS))
                return {}, {}
            case "hidden":
                return {}, {"hidden": self._hidden(request.tensors["tokens"], values["precision"])}
            case operation:
                answer = self._mixers.answer(request)
                if answer is None:
                    raise ValueError(f"unknown operation {operation!r}")
                return answer

    def _build(self, config: BackboneConfig, seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self._model = Backbone(config, self._loaded_class()).to(self._device)
        return {"n_params": count_parameters(self._model)}

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


def _device_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "op"}
