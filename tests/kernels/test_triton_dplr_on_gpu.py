"""On an NVIDIA GPU chunk_dplr's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from on_gpu import (
    BFLOAT16,
    GATED,
    assert_a_baseline_agrees,
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

from linearch.kernels import chunk_dplr

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (32, 24), (64, 64), (100, 36), (128, 128), (256, 192)]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    """As RWKV-7 has them, but for a part of b that lies across a."""
    rows = (2, length, 2)
    a = F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1)
    across = 0.1 * F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "a": a,
        "b": across - a * torch.rand(*rows, key_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(200, *dims), kind, gate)
    assert_agrees_in_bfloat16(chunk_dplr, x)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(130, *dims), kind, gate)
    assert_agrees_in_float32(chunk_dplr, x)


@pytest.mark.parametrize("form", ["triton", None])
@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_any_length_agrees(length: int, form: str | None) -> None:
    """Also in the form that is taken unasked."""
    x = gated(random_inputs(length, 64, 64), "channel", "mild")
    assert_agrees_in_bfloat16(chunk_dplr, x, form=form)


def test_a_single_token_agrees() -> None:
    x = gated(random_inputs(1, 64, 64), "channel", "mild")
    assert_agrees_in_bfloat16(chunk_dplr, x)


def test_keys_far_from_unit_length_do_not_overflow() -> None:
    x = random_inputs(130, 64, 64)
    x["a"], x["b"] = 1e6 * x["a"], 1e-6 * x["b"]
    assert_agrees_in_bfloat16(chunk_dplr, x)


def cuda_inputs() -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkva"}
    x["a"] = F.normalize(x["a"], dim=-1)
    x["b"] = -x["a"] * torch.rand_like(x["a"])
    x["log_decay"] = -0.3 * torch.rand(*rows, 64, device="cuda")
    return x


def test_slices_of_one_projection_give_what_copies_give() -> None:
    assert_slices_give_the_same(chunk_dplr, cuda_inputs(), "qkvab")


def test_what_comes_after_does_not_change_how_a_token_rounds() -> None:
    assert_what_comes_after_changes_nothing(chunk_dplr, cuda_inputs(), cuda_inputs())


def test_a_training_step_is_captured_in_a_cuda_graph() -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs().items()}
    assert_a_graph_gives_the_same(lambda: step(chunk_dplr, x))


def test_a_training_step_is_compiled_as_one_graph() -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs().items()}
    assert_compiled_gives_the_same(chunk_dplr, x)


@pytest.mark.parametrize("form", ["triton", None])
def test_rwkv7_runs_on_triton_under_autocast(form: Any) -> None:
    """Also in the form that is taken unasked."""
    assert_a_baseline_agrees("rwkv7", form)
