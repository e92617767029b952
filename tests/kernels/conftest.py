"""Compares an operation's forms: outputs, final states and every gradient, by relative error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

Operation = Callable[..., Any]
Tensors = dict[str, Tensor]


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    """So that a place which a kernel leaves out is seen."""
    deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def in_a_graph_and_by_itself() -> Callable[..., Iterator[tuple[Tensor, Tensor]]]:
    return _in_a_graph_and_by_itself


def _in_a_graph_and_by_itself(
    step: Callable[[], tuple[Tensor, ...]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor of a step on a GPU as a replayed CUDA graph gives it, and as the step does."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        wanted = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    yield from zip(captured, wanted, strict=True)


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    return _relative_error


@pytest.fixture
def errors_against_naive() -> Callable[..., dict[str, float]]:
    return _errors_against_naive


@pytest.fixture
def log_decay_of() -> Callable[..., Tensor]:
    return _log_decay_of


def _relative_error(got: Tensor, wanted: Tensor) -> float:
    """norm(got - wanted) / norm(wanted); against zeros, norm(got)."""
    assert got.shape == wanted.shape
    got, wanted = got.detach().double().cpu(), wanted.detach().double().cpu()
    norm = wanted.norm().item()
    return (got - wanted).norm().item() / (norm if norm > 0 else 1.0)


def _errors_against_naive(
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
    wanted = _results(operation, tensors, gradients, form="naive", **options)
    cast = {name: x.to(device=device, dtype=dtype) for name, x in tensors.items()}
    got = _results(operation, cast, gradients, form=form, **options)
    assert got.keys() == wanted.keys()
    return {name: _relative_error(got[name], x) for name, x in wanted.items()}


def _results(operation: Operation, tensors: Tensors, gradients: bool, **options: Any) -> Tensors:
    inputs = {name: x.detach().clone().requires_grad_(gradients) for name, x in tensors.items()}
    returned = operation(**inputs, **options)
    outputs = returned if isinstance(returned, tuple) else (returned,)
    results = {f"output{i}": x for i, x in enumerate(outputs)}
    if gradients:
        torch.manual_seed(1)
        weights = [torch.randn(x.shape, dtype=torch.float64).to(x) for x in outputs]
        sum((x * w).sum() for x, w in zip(outputs, weights, strict=True)).backward()
        results |= {f"d{name}": x.grad for name, x in inputs.items()}
    return results


def _log_decay_of(kind: str, *shape: int) -> Tensor:
    """Gates in float64: a number (all that), "mixed" (-20, 0 and between), "mild" or "strong"."""
    chance = torch.rand(shape, dtype=torch.float64)
    if kind == "mixed":
        strong_or_none = torch.where(chance < 0.3, -20.0, 0.0)
        return torch.where(chance < 0.6, strong_or_none, -chance)
    if kind in ("mild", "strong"):
        return -chance * (0.3 if kind == "mild" else 10.0)
    return torch.full(shape, float(kind), dtype=torch.float64)
