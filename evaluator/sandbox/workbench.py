"""What a child does with a candidate: loads it, builds it, feeds it and trains it, as it is asked.

Everything it answers is a claim: the supervisor checks tensors and counts, and measures the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...search_space.asi_arch import load_asi_arch_class
from ...search_space.backbone import Backbone, BackboneConfig
from ...search_space.loading import load_mixer_class
from ...search_space.parameters import count_parameters
from ..batches import NoiseBatches, open_batches
from ..checkpoint import (
    CHECKPOINT_IN,
    CHECKPOINT_OUT,
    WEIGHTS,
    load_weights,
    model_tensors,
    save_tensors,
)
from ..recipe import Recipe
from ..training import Trainer, autocast
from .cost_meter import CostMeter
from .mixer_bench import Answer, MixerBench
from .protocol import Message
from .stream_bench import StreamBench

CANDIDATE_FILE = "<mixer candidate>"  # what load_mixer_class calls it in tracebacks
_MODULE_NAME = "candidate"
_LOADERS = {"linearch": load_mixer_class, "asi-arch": load_asi_arch_class}
Report = Callable[..., None]


class Workbench:
    """One candidate in one process: its class, a whole model and single mixers by layer."""

    def __init__(self, device: torch.device, data: int | None = None) -> None:
        self._device = device
        self._data = data
        self._mixer_class: type[nn.Module] | None = None
        self._model: Backbone | None = None
        self._recipe: Recipe | None = None
        self._trainer: Trainer | None = None
        self._mixers = MixerBench(device)
        self._stream = StreamBench(device)

    def answer(self, request: Message, report: Report) -> Answer:
        """The values and tensors of the reply; `report(event, **values)` tells of the way there."""
        values = request.values
        match values["op"]:
            case "device":  # asked before a candidate is loaded, so believed
                return _facts(self._device), {}
            case "load":
                self._mixer_class = _LOADERS[values["convention"]](values["source"], _MODULE_NAME)
                return {}, {}
            case "build":
                return self._build(BackboneConfig(**values["model"]), values["seed"]), {}
            case "work":
                return {"multiply_adds": self._work(values["length"])}, {}
            case "mixer":
                self._mixers.make(self._loaded_class(), **_arguments(values))
                return {}, {}
            case "trained_mixer":
                self._mixers.take(
                    values["layer"], self._whole_model().blocks[values["layer"]].mixer
                )
                return {}, {}
            case "start_stream" | "stream_on" | "take_state" | "put_state":
                return self._stream.answer(self._whole_model(), request)
            case "prepare":
                self._prepare(values, report)
                return {}, {}
            case "train":
                return self._train(values), {}
            case "practise":
                return self._practise(Recipe(**values["recipe"]))
            case "load_weights":
                load_weights(self._whole_model(), Path(WEIGHTS))
                return {}, {}
            case "hidden":
                return {}, {"hidden": self._hidden(request.tensors["tokens"], values)}
            case operation:
                answer = self._mixers.answer(request)
                if answer is None:
                    raise ValueError(f"unknown operation {operation!r}")
                return answer

    def _build(self, config: BackboneConfig, seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self._model = Backbone(config, self._loaded_class()).to(self._device)
        shapes = {name: list(t.shape) for name, t in model_tensors(self._model).items()}
        return {"n_params": count_parameters(self._model), "shapes": shapes}

    def _work(self, length: int) -> int:
        """Multiply-adds of a training step on one row of so many tokens, head and loss included."""
        model, meter = self._whole_model().train(), CostMeter()
        tokens = torch.arange(length, device=self._device)[None] % model.config.vocab_size
        with meter.phase("step"):
            logits = model.logits(model(tokens)[0])
            torch.autograd.backward(logits.float().logsumexp(-1).sum())
        model.zero_grad(set_to_none=True)
        return meter.totals["step"]["multiply_adds"]

    def _prepare(self, values: Mapping[str, Any], report: Report) -> None:
        """All that training takes but its data, which the supervisor serves when this is done."""
        self._recipe = Recipe(**values["recipe"])
        self._trainer = Trainer(self._whole_model(), self._recipe, report)
        if values["resume"]:
            self._trainer.restore(Path(CHECKPOINT_IN))
        self._trainer.warm_up()

    def _train(self, values: Mapping[str, Any]) -> dict[str, Any]:
        assert self._data is not None, "training needs data"
        assert self._trainer is not None, "prepare comes first"
        assert self._recipe is not None
        batches = open_batches(values["data"], self._data, self._recipe, self._device)
        outcome = self._trainer.train(batches, Path(CHECKPOINT_OUT))
        save_tensors(model_tensors(self._whole_model()), Path(WEIGHTS))
        is_cuda = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if is_cuda else None
        return {**outcome, "cuda_peak_bytes": peak}

    def _practise(self, recipe: Recipe) -> Answer:
        """Trains on noise; the reply holds the head that this left."""
        model = self._whole_model()
        noise = NoiseBatches(model.config.vocab_size, recipe, self._device)
        outcome = Trainer(model, recipe, lambda *_, **__: None).train(noise)
        return outcome, {"head": model.embedding.weight}

    @torch.no_grad()
    def _hidden(self, tokens: Tensor, values: Mapping[str, Any]) -> Tensor:
        model = self._whole_model().train(values["train"])
        with autocast(self._device, values["precision"]):
            hidden: Tensor = model(tokens.to(self._device, torch.int64))[0]
        return hidden.float()

    def _loaded_class(self) -> type[nn.Module]:
        assert self._mixer_class is not None, "load comes first"
        return self._mixer_class

    def _whole_model(self) -> Backbone:
        assert self._model is not None, "build comes first"
        return self._model


def _facts(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": None, "capability": None}
    major, minor = torch.cuda.get_device_capability(device)
    return {"name": torch.cuda.get_device_name(device), "capability": 10 * major + minor}


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "op"}
