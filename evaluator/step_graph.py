"""A whole training step as one CUDA graph: recorded once, then launched with every new batch.

A graph repeats the kernels of the step that it was recorded from and runs none of its Python. So a
step that waits for the GPU, or that does something else each time it is called, is not recorded;
it is tried out on tokens that mean nothing, and everything it changes is put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-4  # of a loss; a step's own sums differ by less from one run to the next
_MESSAGE_CHARS = 300

Advance = Callable[[Tensor, Tensor], None]


class RecordableStep(Protocol):
    """A step on inputs and labels [B, T], which adds its loss to `total`."""

    total: Tensor

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def __call__(self, inputs: Tensor, labels: Tensor) -> None: ...


class NotRecordable(Exception):
    """Why a step must be run by Python each time."""


def record(step: RecordableStep, tokens: Tensor) -> Advance:
    """What does the same as `step` on batches of the shape of `tokens` (int64 [B, T]) from now on.

    Leaves parameters, buffers, optimiser and random numbers as they were, optimiser states at 0
    where there were none. Raises NotRecordable, or what the step raises when it is run as it is.
    """
    saved = _Saved(step)
    batches = [(tokens, tokens), (tokens.flip(1), tokens)]
    step(tokens, tokens)  # compiles kernels, and makes what is made at the first call
    saved.restore()
    try:
        with _waiting_forbidden():
            expected = _losses(step, step, batches)
        saved.restore()
        advance = _capture(step, tokens)
        saved.restore()
        _compare(expected, _losses(step, advance, batches))
    except RuntimeError as error:  # torch's and CUDA's; memory that is short with a graph too
        raise NotRecordable(_first_line(error)) from error
    finally:
        saved.restore()
    return advance


class _Saved:
    """All that a step changes, in the host's memory, so that the GPU's peak is the training's."""

    def __init__(self, step: RecordableStep) -> None:
        self._step = step
        self._buffers = [
            (module, name, buffer)
            for module in step.model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        held = [
            *step.model.parameters(),
            *(buffer for _, _, buffer in self._buffers),
            *_states(step.optimizer),
        ]
        self._copies = {
            id(tensor): (tensor, tensor.detach().to("cpu", copy=True)) for tensor in held
        }
        self._random = torch.get_rng_state(), torch.cuda.get_rng_state(step.total.device)

    @torch.no_grad()
    def restore(self) -> None:
        for module, name, buffer in self._buffers:
            setattr(module, name, buffer)
        for tensor, copy in self._copies.values():
            tensor.copy_(copy)
        for state in _states(self._step.optimizer):
            if id(state) not in self._copies:
                state.zero_()
        self._step.optimizer.zero_grad(set_to_none=True)
        self._step.total.zero_()
        torch.set_rng_state(self._random[0])
        torch.cuda.set_rng_state(self._random[1], self._step.total.device)


def _states(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def _losses(
    step: RecordableStep, advance: Advance, batches: list[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    losses = []
    for inputs, labels in batches:
        step.total.zero_()
        advance(inputs, labels)
        losses.append(step.total.clone())
    return losses


def _compare(expected: list[Tensor], found: list[Tensor]) -> None:
    for run, replayed in zip(expected, found, strict=True):
        loss, again = run.item(), replayed.item()
        if not math.isclose(loss, again, rel_tol=_TOLERANCE):
            raise NotRecordable(f"a loss of {loss:.6g} became {again:.6g} in the graph")


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Finds what would break a recording while nothing can be broken yet."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _capture(step: RecordableStep, tokens: Tensor) -> Advance:
    inputs, labels = tokens.clone(), tokens.clone()
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a graph keeps memory of its own
    # torch.cuda.graph would leave its stream the current one when a recording fails.
    with torch.cuda.stream(_recording_stream()):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            step(inputs, labels)
        finally:
            _end(graph, pool, step)

    def advance(new_inputs: Tensor, new_labels: Tensor) -> None:
        inputs.copy_(new_inputs)
        labels.copy_(new_labels)
        graph.replay()

    return advance


def _end(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], step: RecordableStep) -> None:
    try:
        graph.capture_end()
    except RuntimeError as error:
        _clean_up(step, pool)
        raise NotRecordable(_first_line(error.__context__ or error)) from error


@cache
def _recording_stream() -> torch.cuda.Stream:
    """One for all recordings: torch keeps a workspace of cuBLAS for every stream."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _clean_up(step: RecordableStep, pool: tuple[int, int]) -> None:
    """What a recording that CUDA has broken off leaves behind in torch.

    The allocator would go on as if it were recorded (it returns no memory meanwhile), the generator
    would refuse to draw. Raises RuntimeError if the GPU cannot be used any more.
    """
    device = torch.cuda.current_device()
    with suppress(RuntimeError):  # where torch has done so itself
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
    whole = torch.cuda.CUDAGraph()  # a generator draws again after a recording that succeeded
    whole.capture_begin(capture_error_mode="thread_local")
    step.total.zero_()
    whole.capture_end()
    torch.rand((), device=step.total.device)
    torch.cuda.synchronize()


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}"[:_MESSAGE_CHARS]
