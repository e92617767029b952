"""On an NVIDIA GPU chunk_oja's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from on_gpu import (
    BFLOAT16,
    GATED,
    KINDS,
    assert_a_graph_gives_the_same,
    assert_agrees_in_bfloat16,
    assert_agrees_in_float32,
    assert_compiled_gives_the_same,
    assert_slices_give_the_same,
    assert_what_comes_after_changes_nothing,
    gated,
    step,
)
from torch import Tensor

from linearch.kernels import chunk_oja

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (64, 16), (32, 24), (64, 64), (100, 36), (16, 64), (128, 128), (256, 192)]


def random_inputs(
    length: int, key_dim: int, value_dim: int, *, strongest: float = 2.0
) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": F.normalize(torch.randn(*rows, value_dim, dtype=FLOAT64), dim=-1),
        "beta": strongest * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(200, *dims), kind, gate, like="v")
    assert_agrees_in_bfloat16(chunk_oja, x)


@pytest.mark.parametrize("dims", [(64, 64), (128, 128)])
def test_a_thousand_tokens_that_forget_nothing_agree_in_bfloat16(dims: tuple[int, int]) -> None:
    assert_agrees_in_bfloat16(chunk_oja, random_inputs(1000, *dims))


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_any_length_agrees(length: int, kind: str | None) -> None:
    x = gated(random_inputs(length, 64, 64, strongest=1.0), kind, "mild", like="v")
    assert_agrees_in_bfloat16(chunk_oja, x)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(130, *dims), kind, gate, like="v")
    assert_agrees_in_float32(chunk_oja, x)


def test_values_far_from_unit_length_do_not_overflow() -> None:
    x = random_inputs(130, 64, 64)
    x["v"], x["beta"] = 1000 * x["v"], 1e-6 * x["beta"]
    assert_agrees_in_bfloat16(chunk_oja, x, bar=1e-2)


def cuda_inputs(kind: str | None) -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    x["v"] = F.normalize(x["v"], dim=-1)
    x["beta"] = torch.rand(rows, device="cuda")
    if kind is not None:
        shapes = {"scalar": rows, "channel": (*rows, 64)}
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    return x


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_slices_of_one_projection_give_what_copies_give(kind: str | None) -> None:
    assert_slices_give_the_same(chunk_oja, cuda_inputs(kind))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_comes_after_does_not_change_how_a_token_rounds(kind: str | None) -> None:
    assert_what_comes_after_changes_nothing(chunk_oja, cuda_inputs(kind), cuda_inputs(kind))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_pass_without_gradients_gives_what_a_training_step_does(kind: str | None) -> None:
    x = cuda_inputs(kind)
    alone, _ = chunk_oja(**x, form="triton")
    trained, *_ = step(chunk_oja, {name: t.requires_grad_() for name, t in x.items()})
    assert torch.equal(alone, trained)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_training_step_is_captured_in_a_cuda_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_a_graph_gives_the_same(lambda: step(chunk_oja, x))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_training_step_is_compiled_as_one_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_compiled_gives_the_same(chunk_oja, x)
