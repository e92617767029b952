"""On an NVIDIA GPU attention's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from on_gpu import (
    BFLOAT16,
    assert_a_graph_gives_the_same,
    assert_agrees_in_bfloat16,
    assert_agrees_in_float32,
    assert_compiled_gives_the_same,
    assert_heads_beyond_two_to_the_31_elements_agree,
    assert_slices_give_the_same,
    step,
    under_autocast,
)
from torch import Tensor

from linearch.kernels import causal_attention

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (32, 48), (64, 64), (24, 256), (100, 36), (128, 128), (256, 192)]
GATES = [None, "0", "mixed", "mild"]
Errors = Callable[..., dict[str, float]]
LogDecay = Callable[..., Tensor]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
    }


def attend(**x: Any) -> Tensor:
    """The outputs alone."""
    return causal_attention(**x)[0]


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("window", [None, 70])
def test_bfloat16_agrees(
    window: int | None,
    gate: str | None,
    dims: tuple[int, int],
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(300, *dims)
    if gate is not None:
        x["log_decay"] = log_decay_of(gate, 2, 300, 2)
    assert_agrees_in_bfloat16(partial(attend, window=window), x)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36), (128, 128)])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("window", [None, 40])
def test_float32_agrees(
    window: int | None,
    gate: str | None,
    dims: tuple[int, int],
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(130, *dims) | {"sinks": torch.randn(2, dtype=FLOAT64)}
    if gate is not None:
        x["log_decay"] = log_decay_of(gate, 2, 130, 2)
    assert_agrees_in_float32(partial(attend, window=window), x)


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_a_gate_s_gradient_is_exact_where_every_token_sees_itself_alone(
    dtype: torch.dtype, errors_against_naive: Errors
) -> None:
    """That of q and k is then 1e-9 of the terms it is the difference of: rounding in any form."""
    x = random_inputs(200, 64, 64) | {"log_decay": torch.full((2, 200, 2), -20.0, dtype=FLOAT64)}
    errors = errors_against_naive(
        under_autocast(attend), x, dtype=dtype, device="cuda", form="triton"
    )
    bar = 1e-4 if dtype == torch.float32 else 1e-2
    assert max(errors[name] for name in ("output0", "dv", "dlog_decay")) < bar, errors


@pytest.mark.parametrize("window", [None, 1, 64, 200])
@pytest.mark.parametrize("length", [1, 2, 63, 65, 129, 1000])
def test_any_length_and_window_agree(
    length: int,
    window: int | None,
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(length, 64, 64)
    x |= {"log_decay": log_decay_of("mild", 2, length, 2), "sinks": torch.randn(2, dtype=FLOAT64)}
    errors = errors_against_naive(
        under_autocast(attend), x, dtype=BFLOAT16, device="cuda", form="triton", window=window
    )
    # A sum over all tokens of terms of either sign, which may be small by chance.
    assert errors.pop("dsinks") < 5e-2, errors
    assert all(error < 1e-2 for error in errors.values()), errors


@pytest.mark.parametrize("window", [None, 64])
def test_a_long_sequence_s_sums_cost_no_accuracy(
    window: int | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    """What is forgotten before the last 1,000 of 100,000 tokens changes neither them nor a gate."""
    x = cuda_inputs("decay", heads=1, length=100_000)
    x = {name: t[:1] for name, t in x.items()}
    x["log_decay"] = x["log_decay"] - 2.0
    x["log_decay"][:, -1000] = -100.0
    last = {name: t[:, -1000:] for name, t in x.items()}
    windowed = partial(attend, window=window)
    whole, alone = (
        step(windowed, {n: t.detach().clone().requires_grad_() for n, t in y.items()})
        for y in (x, last)
    )
    for a, b in zip(whole, alone, strict=True):
        assert relative_error(a[:, -900:], b[:, -900:]) < 5e-3


def cuda_inputs(kind: str, *, heads: int = 2, length: int = 200) -> dict[str, Tensor]:
    rows = (2, length, heads)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    if kind == "decay":
        x["log_decay"] = -0.3 * torch.rand(rows, device="cuda")
    if kind == "sinks":
        x["sinks"] = torch.randn(heads, device="cuda")
    return x


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_slices_of_one_projection_give_what_copies_give(kind: str) -> None:
    assert_slices_give_the_same(attend, cuda_inputs(kind))


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_a_training_step_is_captured_in_a_cuda_graph(kind: str) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_a_graph_gives_the_same(lambda: step(partial(attend, window=64), x))


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_a_training_step_is_compiled_as_one_graph(kind: str) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_compiled_gives_the_same(partial(attend, window=64), x)


def test_more_than_two_to_the_31_elements_are_addressed() -> None:
    assert_heads_beyond_two_to_the_31_elements_agree(partial(attend, window=64))
