"""On an NVIDIA GPU decays of value channels agree with the float64 loop too, also in graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.kernels import chunk_decay

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
DIMS = [(16, 16), (32, 48), (64, 64), (100, 36), (128, 128), (64, 128)]
GATES = ["0", "-20", "mixed", "mild"]
WIDE = ("value_log_decay", "initial_state")

Errors = Callable[..., dict[str, float]]
LogDecay = Callable[..., Tensor]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


def in_float32_but_for_qkv(**x: Any) -> Any:
    """As a layer under autocast calls it: gates and states stay float32."""
    if x["q"].dtype != FLOAT64:
        x |= {name: x[name].float() for name in WIDE if name in x}
    return chunk_decay(**x)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("gate", GATES)
def test_a_decay_of_value_channels_agrees_in_bfloat16(
    dims: tuple[int, int], gate: str, errors_against_naive: Errors, log_decay_of: LogDecay
) -> None:
    x = random_inputs(200, *dims)
    x["value_log_decay"] = log_decay_of(gate, *x["v"].shape)
    found = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in found.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), found


@pytest.mark.parametrize("gate", GATES)
def test_a_decay_of_value_channels_agrees_in_float32(
    gate: str, errors_against_naive: Errors, log_decay_of: LogDecay
) -> None:
    x = random_inputs(130, 64, 48)
    x["value_log_decay"] = log_decay_of(gate, *x["v"].shape)
    found = errors_against_naive(chunk_decay, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in found.values()), found


def test_a_training_step_is_captured_in_a_cuda_graph(
    log_decay_of: LogDecay, in_a_graph_and_by_itself: Both
) -> None:
    x = random_inputs(130, 64, 64)
    x["value_log_decay"] = log_decay_of("mild", *x["v"].shape)
    x = {n: t.to("cuda", torch.float32 if n in WIDE else BFLOAT16) for n, t in x.items()}
    leaves = [t.requires_grad_() for t in x.values()]

    def step() -> tuple[Tensor, ...]:
        o, state = chunk_decay(**x, form="triton")
        return torch.autograd.grad(o.float().square().sum() + state.square().sum(), leaves)

    for a, b in in_a_graph_and_by_itself(step):
        torch.testing.assert_close(a, b)
