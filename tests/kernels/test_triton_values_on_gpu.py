"""On an NVIDIA GPU decays of value channels agree with the float64 loop too, also in graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from on_gpu import (
    BFLOAT16,
    KINDS,
    assert_a_graph_gives_the_same,
    assert_agrees_in_bfloat16,
    assert_agrees_in_float32,
    gated,
    step,
)
from torch import Tensor

from linearch.kernels import chunk_decay

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (32, 48), (64, 64), (100, 36), (128, 128), (64, 128)]
GATES = ["0", "-20", "mixed", "mild"]
WIDE = ("value_log_decay", "initial_state")

LogDecay = Callable[..., Tensor]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("gate", GATES)
def test_a_decay_of_value_channels_agrees_in_bfloat16(
    dims: tuple[int, int], gate: str, log_decay_of: LogDecay
) -> None:
    x = random_inputs(200, *dims)
    x["value_log_decay"] = log_decay_of(gate, *x["v"].shape)
    assert_agrees_in_bfloat16(chunk_decay, x)


@pytest.mark.parametrize("gate", GATES)
def test_a_decay_of_value_channels_agrees_in_float32(gate: str, log_decay_of: LogDecay) -> None:
    x = random_inputs(130, 64, 48)
    x["value_log_decay"] = log_decay_of(gate, *x["v"].shape)
    assert_agrees_in_float32(chunk_decay, x)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", KINDS)
def test_decays_of_keys_and_of_value_channels_agree(
    dims: tuple[int, int], gate: str, kind: str, log_decay_of: LogDecay
) -> None:
    x = gated(random_inputs(200, *dims), kind, gate)
    x["value_log_decay"] = log_decay_of(gate, *x["v"].shape)
    x["bonus"] = torch.randn(2, dims[0], dtype=FLOAT64)
    assert_agrees_in_bfloat16(chunk_decay, x)


@pytest.mark.parametrize("kind", KINDS)
def test_decays_of_keys_and_of_value_channels_agree_in_float32(
    kind: str, log_decay_of: LogDecay
) -> None:
    x = gated(random_inputs(130, 64, 48), kind, "mixed")
    x["value_log_decay"] = log_decay_of("mixed", *x["v"].shape)
    assert_agrees_in_float32(chunk_decay, x)


def test_a_training_step_is_captured_in_a_cuda_graph(log_decay_of: LogDecay) -> None:
    x = random_inputs(130, 64, 64)
    x["value_log_decay"] = log_decay_of("mild", *x["v"].shape)
    x = {n: t.to("cuda", torch.float32 if n in WIDE else BFLOAT16) for n, t in x.items()}
    x = {n: t.requires_grad_() for n, t in x.items()}
    assert_a_graph_gives_the_same(lambda: step(chunk_decay, x))
