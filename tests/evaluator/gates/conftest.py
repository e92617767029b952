"""A probe in the test's own process, and the smallest sound mixer to build cheats upon."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from linearch.config import GateConfig
from linearch.evaluator.gates import (
    Gradient,
    MixerProbe,
    PieceState,
    ProbeFacts,
    ProbeFailed,
    StateTensor,
    StreamResult,
)

State = dict[str, Tensor]
MakeProbe = Callable[..., MixerProbe]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class LocalProbe:
    """The MixerProbe of the tests: no sandbox, the same meaning."""

    def __init__(self, mixer: nn.Module, facts: ProbeFacts, jitter: float) -> None:
        self.facts = facts
        self.mixer = mixer
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter += jitter * torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor, train: bool = False) -> Tensor:
        self._set_mode(train)
        with torch.no_grad(), _failures():
            y, _ = self.mixer(x.clone())
        return y

    def stream(self, x: Tensor, lengths: Sequence[int]) -> StreamResult:
        self._set_mode(train=False)
        state: State | None = None
        outputs, states = [], []
        for piece in x.split(list(lengths), dim=1):
            with torch.no_grad(), _failures():
                y, state = self.mixer(piece.clone(), state)
            outputs.append(y)
            states.append(_measured(state))
            state = {key: tensor.clone() for key, tensor in state.items()}
        return StreamResult(y=torch.cat(outputs, dim=1), states=tuple(states))

    def gradients(self, x: Tensor, cotangent: Tensor) -> Mapping[str, Gradient]:
        self._set_mode(train=True)
        self.mixer.zero_grad(set_to_none=True)
        with _failures():
            y, _ = self.mixer(x.clone())
            (y * cotangent).sum().backward()
        return {name: _gradient(p) for name, p in self.mixer.named_parameters()}

    def _set_mode(self, train: bool) -> None:
        self.mixer.train(train)
        if train:
            torch.manual_seed(0)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise ProbeFailed("raised", str(error)) from error


def _measured(state: object) -> PieceState:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ProbeFailed("protocol", "the state is not a flat dict of tensors")
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()
    }
    return PieceState(
        tensors={
            key: StateTensor(shape=tuple(t.shape), dtype=str(t.dtype)[6:], n_bytes=t.nbytes)
            for key, t in state.items()
        },
        storage_bytes=sum(storages.values()),
    )


def _gradient(parameter: nn.Parameter) -> Gradient:
    if parameter.grad is None:
        return Gradient(is_finite=True, norm=None, numel=parameter.numel())
    norm = float(parameter.grad.norm())
    return Gradient(
        is_finite=bool(parameter.grad.isfinite().all()), norm=norm, numel=parameter.numel()
    )


@pytest.fixture
def config() -> GateConfig:
    return GateConfig()


@pytest.fixture
def make_probe() -> MakeProbe:
    """A probe of `mixer_class(d_model, n_heads, layer_idx, n_layers)`, jittered."""

    def make(
        mixer_class: Callable[..., nn.Module],
        *,
        d_model: int = 32,
        seq_len: int = 128,
        layer_index: int = 0,
        is_reference: bool = False,
        jitter: float = 0.05,
    ) -> MixerProbe:
        torch.manual_seed(3)
        facts = ProbeFacts(
            d_model=d_model,
            seq_len=seq_len,
            n_layers=2,
            layer_index=layer_index,
            is_reference=is_reference,
        )
        return LocalProbe(mixer_class(d_model, 2, layer_index, 2), facts, jitter)

    return make
