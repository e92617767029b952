"""A model's tensors and its optimiser's state as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

# The files' names in a child's scratch folder.
CHECKPOINT_IN = "resume.safetensors"
CHECKPOINT_OUT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"

_MODEL = "model."
_ADAM = "adam."
_STEP = "step"


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, shared ones once."""
    kept = model.state_dict(keep_vars=True)
    unique = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in unique.items() if name in kept}


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


@torch.no_grad()
def load_weights(model: nn.Module, path: Path) -> None:
    """Raises ValueError if names or shapes differ from the model's."""
    _copy(safetensors.torch.load_file(path), model_tensors(model))


def save_checkpoint(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path
) -> None:
    """Everything that training needs to go on after `step` steps."""
    tensors = {_MODEL + name: tensor for name, tensor in model_tensors(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_ADAM}{key}.{name}"] = value
    tensors[_STEP] = torch.tensor(step)
    save_tensors(tensors, path)


@torch.no_grad()
def load_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Restores model and optimiser; the number of steps they have seen."""
    tensors = safetensors.torch.load_file(path)
    stored = {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)}
    _copy(stored, model_tensors(model))
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith(_ADAM):
            state_key, name = key.removeprefix(_ADAM).split(".", 1)
            parameter = parameters[name]
            optimizer.state[parameter][state_key] = value.to(parameter.device)
    return int(tensors[_STEP])


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if source.keys() != target.keys():
        raise ValueError(
            f"the file and the model differ in {sorted(source.keys() ^ target.keys())}"
        )
    for name, tensor in target.items():
        if tensor.shape != source[name].shape:
            raise ValueError(f"{name} is {list(source[name].shape)}, not {list(tensor.shape)}")
        tensor.copy_(source[name])
