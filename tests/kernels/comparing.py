"""Compares an operation's forms: outputs, final states and every gradient, by relative error."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor

Operation = Callable[..., Any]
Tensors = dict[str, Tensor]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """norm(got - wanted) / norm(wanted); against zeros, norm(got)."""
    assert got.shape == wanted.shape
    got, wanted = got.detach().double().cpu(), wanted.detach().double().cpu()
    norm = wanted.norm().item()
    return (got - wanted).norm().item() / (norm if norm > 0 else 1.0)


def errors_against_naive(
    operation: Operation,
    tensors: Tensors,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    gradients: bool = True,
    form: str = "chunked",
    **options: Any,
) -> dict[str, float]:
    """Relative errors of a form in `dtype` against the naive form in float64.

    `tensors` are the float64 arguments by name. The loss weights outputs and final states at
    random; a gradient's entry is "d" and the argument's name.
    """
    tensors = {name: x.to(dtype).double() for name, x in tensors.items()}
    fixed = () if gradients else tensors
    wanted = results(operation, tensors, fixed=fixed, form="naive", **options)
    cast = {name: x.to(device=device, dtype=dtype) for name, x in tensors.items()}
    return relative_errors(results(operation, cast, fixed=fixed, form=form, **options), wanted)


def relative_errors(got: Tensors, wanted: Tensors) -> dict[str, float]:
    assert got.keys() == wanted.keys()
    return {name: relative_error(got[name], x) for name, x in wanted.items()}


def results(
    operation: Operation,
    tensors: Tensors,
    *,
    fixed: Container[str] = (),
    unused: Container[str] = (),
    **options: Any,
) -> Tensors:
    """Outputs, and gradients of all arguments that are not fixed; where there is none, zeros.

    The loss has every output in it but the unused ones.
    """
    inputs = {name: x.detach().requires_grad_(name not in fixed) for name, x in tensors.items()}
    returned = operation(**inputs, **options)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    found = {f"output{i}": x for i, x in enumerate(outputs)}
    leaves = {f"d{name}": x for name, x in inputs.items() if x.requires_grad}
    if not leaves:
        return found
    torch.manual_seed(1)
    weights = [torch.randn(x.shape, dtype=torch.float64).to(x) for x in outputs]
    pairs = zip(found.items(), weights, strict=True)
    loss = sum((x * w).sum() for (name, x), w in pairs if name not in unused)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return found | dict(zip(leaves, gradients, strict=True))


def log_decay_of(kind: str, *shape: int) -> Tensor:
    """Gates in float64: a number (all that), "mixed" (-20, 0 and between), "mild" or "strong"."""
    chance = torch.rand(shape, dtype=torch.float64)
    if kind == "mixed":
        strong_or_none = torch.where(chance < 0.3, -20.0, 0.0)
        return torch.where(chance < 0.6, strong_or_none, -chance)
    if kind in ("mild", "strong"):
        return -chance * (0.3 if kind == "mild" else 10.0)
    return torch.full(shape, float(kind), dtype=torch.float64)
