"""On an NVIDIA GPU the Triton forms agree with the float64 loops, also inside graphs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from on_gpu import (
    BFLOAT16,
    GATED,
    KINDS,
    assert_a_baseline_agrees,
    assert_a_graph_gives_the_same,
    assert_agrees_in_bfloat16,
    assert_agrees_in_float32,
    assert_compiled_gives_the_same,
    assert_heads_beyond_two_to_the_31_elements_agree,
    assert_slices_give_the_same,
    assert_what_comes_after_changes_nothing,
    gated,
    step,
)
from torch import Tensor

from linearch.kernels import chunk_decay

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (32, 48), (64, 64), (24, 256), (100, 36), (128, 128), (256, 192)]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(200, *dims), kind, gate)
    assert_agrees_in_bfloat16(chunk_decay, x)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(130, *dims), kind, gate)
    assert_agrees_in_float32(chunk_decay, x)


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("length", [2, 63, 65, 1000])
def test_any_length_agrees(length: int, kind: str | None) -> None:
    x = gated(random_inputs(length, 64, 64), kind, "mild")
    assert_agrees_in_bfloat16(chunk_decay, x, bar=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", ["mixed", "mild"])
def test_segments_of_one_sequence_agree(gate: str, kind: str) -> None:
    """Few sequences are cut into segments, whose states are joined."""
    x = gated(random_inputs(600, 64, 64), kind, gate)
    assert_agrees_in_float32(chunk_decay, x)


@pytest.mark.parametrize("kind", ["scalar", "channel"])
def test_bonus_normaliser_and_grouped_values_agree(kind: str) -> None:
    x = random_inputs(130, 32, 32)
    x["v"], x["initial_state"] = torch.randn(2, 130, 6, 32, dtype=FLOAT64), torch.rand(2, 6, 32, 33)
    x["q"], x["k"] = x["q"].abs() + 0.1, x["k"].abs() + 0.1
    x = gated(x, kind, "mild")
    x["bonus"] = torch.rand(6, 32, dtype=FLOAT64)
    assert_agrees_in_float32(partial(chunk_decay, normalise=True), x)


def cuda_inputs(kind: str | None, *, heads: int = 2, length: int = 130) -> dict[str, Tensor]:
    rows = (2, length, heads)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    if kind is not None:
        shapes = {"scalar": rows, "channel": (*rows, 64)}
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    return x


def test_a_constant_decay_is_its_value_at_every_token() -> None:
    """Its gradient sums gradients that cancel: too ill-conditioned to compare with the loop's."""
    x, g = cuda_inputs(None), -torch.rand(2, device="cuda")
    constant = step(
        chunk_decay, {n: t.clone().requires_grad_() for n, t in (x | {"log_decay": g}).items()}
    )
    per_token = g.expand(2, 130, 2).contiguous()
    scalar = step(
        chunk_decay,
        {n: t.clone().requires_grad_() for n, t in (x | {"log_decay": per_token}).items()},
    )
    for a, b in zip(constant[:-1], scalar[:-1], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(constant[-1], scalar[-1].sum((0, 1)))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_slices_of_one_projection_give_what_copies_give(kind: str | None) -> None:
    assert_slices_give_the_same(chunk_decay, cuda_inputs(kind))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_training_step_is_captured_in_a_cuda_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_a_graph_gives_the_same(lambda: step(chunk_decay, x))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_training_step_is_compiled_as_one_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_compiled_gives_the_same(chunk_decay, x)


@pytest.mark.parametrize("name", ["linear_attention", "retnet", "mamba2", "gla", "hgrn2"])
def test_baselines_run_on_triton_under_autocast(name: str) -> None:
    assert_a_baseline_agrees(name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_after_does_not_change_how_a_token_rounds(kind: str) -> None:
    assert_what_comes_after_changes_nothing(chunk_decay, cuda_inputs(kind), cuda_inputs(kind))


def test_more_than_two_to_the_31_elements_are_addressed() -> None:
    assert_heads_beyond_two_to_the_31_elements_agree(chunk_decay)
