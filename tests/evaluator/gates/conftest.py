"""A probe on a mixer in this process: the product's probe and bench, with no sandbox between."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import torch._dynamo  # a dispatch mode loads it on first use, which takes seconds
from siblings import load_siblings
from torch import Tensor, nn

from linearch.config import GateConfig
from linearch.evaluator.gates import MixerProbe, Precision, ProbeFacts
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.mixer_bench import ContractBroken, MixerBench, jitter_parameters
from linearch.evaluator.sandbox.protocol import Message
from linearch.evaluator.sandbox.remote_probe import RemoteProbe

MakeProbe = Callable[..., MixerProbe]
_OURS = os.pidfd_open(os.getpid())


load_siblings(__file__, "honest_mixer")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in a child
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


class LocalChild:
    """Answers as a child does that has loaded a candidate, with the tensors copied."""

    def __init__(self, mixer: nn.Module) -> None:
        self._mixer = mixer
        self._bench = MixerBench(torch.device("cpu"))

    @property
    def process(self) -> int:
        return _OURS

    def call(
        self,
        op: str,
        values: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        reply_bytes: int,
    ) -> Message:
        values = {**values, "op": op}
        if op in ("mixer", "trained_mixer"):
            if op == "mixer":
                generator = torch.Generator().manual_seed(values["seed"])
                jitter_parameters(self._mixer, values["jitter"], generator)
            self._bench.take(values["layer"], self._mixer)
            return Message(values={})
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        try:
            answer = self._bench.answer(Message(values=values, tensors=copies))
        except ContractBroken as error:
            raise ChildFailed("protocol", str(error)) from error
        except (RuntimeError, ValueError, IndexError) as error:
            raise ChildFailed("raised", str(error)) from error
        assert answer is not None
        return Message(values=answer[0], tensors=answer[1])


@pytest.fixture
def config() -> GateConfig:
    return GateConfig()


@pytest.fixture
def make_probe() -> MakeProbe:
    """A probe of `mixer_class(d_model, n_heads, layer_idx, n_layers)`, jittered unless trained.

    `train(mixer)` stands for a training: it may change the mixer before a trained probe sees it.
    """

    def make(
        mixer_class: Callable[..., nn.Module],
        *,
        d_model: int = 32,
        seq_len: int = 128,
        layer_index: int = 0,
        is_reference: bool = False,
        can_stream: bool = True,
        chunk_sizes: tuple[int, ...] = (),
        precision: Precision = "fp32",
        train: Callable[[nn.Module], object] | None = None,
    ) -> MixerProbe:
        torch.manual_seed(3)
        facts = ProbeFacts(
            d_model=d_model,
            seq_len=seq_len,
            n_layers=2,
            layer_index=layer_index,
            is_reference=is_reference,
            can_stream=can_stream,
            chunk_sizes=chunk_sizes,
        )
        mixer = mixer_class(d_model, 2, layer_index, 2)
        if train is not None:
            train(mixer)
        return RemoteProbe(
            LocalChild(mixer),
            facts,
            n_heads=2,
            seed=7,
            precision=precision,
            is_trained=train is not None,
        )

    return make
