"""On an NVIDIA GPU chunk_delta's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparing import log_decay_of
from on_gpu import (
    BFLOAT16,
    GATED,
    KINDS,
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

from linearch.kernels import chunk_delta

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT64 = torch.float64
DIMS = [(16, 16), (32, 24), (64, 64), (100, 36), (128, 128), (256, 192)]


def random_inputs(
    length: int,
    key_dim: int,
    value_dim: int,
    *,
    steps: int = 1,
    erase_key: bool = False,
    strongest: float = 2.0,
) -> dict[str, Tensor]:
    rows = (2, steps * length, 2)
    x = {
        "q": torch.randn(2, length, 2, key_dim, dtype=FLOAT64),
        "k": F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "beta": strongest * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }
    if erase_key:
        near = x["k"] + 0.1 * torch.randn(*rows, key_dim, dtype=FLOAT64)
        x["erase_key"] = F.normalize(near, dim=-1)
    return x


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(200, *dims), kind, gate)
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(dims: tuple[int, int], kind: str | None, gate: str) -> None:
    x = gated(random_inputs(130, *dims, erase_key=dims[0] == 100), kind, gate)
    assert_agrees_in_float32(chunk_delta, x)


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_any_length_and_erase_key_agrees(length: int, kind: str | None) -> None:
    """Strengths up to 1: up to 2 with no decay, bfloat16's roundings add up over 1000 tokens."""
    x = gated(random_inputs(length, 64, 64, erase_key=True, strongest=1.0), kind, "mild")
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize("dims", [(32, 24), (64, 64), (128, 128)])
@pytest.mark.parametrize(("steps", "erase_key"), [(2, True), (3, False)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_several_steps_a_token_agree(
    dims: tuple[int, int],
    steps: int,
    erase_key: bool,
    kind: str | None,
    gate: str,
) -> None:
    """At -20 alone, a gate's gradient is 1e-9 of what the steps of one token give each other."""
    x = gated(random_inputs(67, *dims, steps=steps, erase_key=erase_key, strongest=1.0), kind, gate)
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize(
    ("kind", "gate"), [(None, "0"), ("scalar", "-20"), ("channel", "-20"), ("channel", "mixed")]
)
def test_two_steps_a_token_agree_in_float32(kind: str | None, gate: str) -> None:
    x = gated(random_inputs(67, 64, 64, steps=2, erase_key=True), kind, gate)
    assert_agrees_in_float32(chunk_delta, x)


@pytest.mark.parametrize("dims", [(32, 24), (64, 64), (128, 128)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_strengths_of_channels_and_grouped_values_agree(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
) -> None:
    """Strengths up to 1: they are rounded with the key and the value they weigh."""
    x = random_inputs(200, *dims)
    x["beta"] = torch.rand_like(x["k"])
    x["v"] = torch.randn(2, 200, 4, dims[1], dtype=FLOAT64)
    x["write_strength"] = torch.rand_like(x["v"])
    x["initial_state"] = torch.randn(2, 4, *dims, dtype=FLOAT64)
    x = gated(x, kind, gate)
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize("kind", [None, "channel"])
@pytest.mark.parametrize("length", [1, 63, 64, 65])
def test_any_length_agrees_with_decays_of_value_channels(length: int, kind: str | None) -> None:
    x = gated(random_inputs(length, 64, 64, strongest=1.0), kind, "mild")
    x["value_log_decay"] = log_decay_of("mixed", *x["v"].shape)
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize("kind", [None, "scalar"])
def test_decays_of_grouped_values_agree_with_strengths_of_channels(kind: str | None) -> None:
    x = random_inputs(130, 64, 64)
    x["beta"] = torch.rand_like(x["k"])
    x["v"] = torch.randn(2, 130, 4, 64, dtype=FLOAT64)
    x["write_strength"] = torch.rand_like(x["v"])
    x["value_log_decay"] = log_decay_of("mild", *x["v"].shape)
    x["initial_state"] = torch.randn(2, 4, 64, 64, dtype=FLOAT64)
    assert_agrees_in_bfloat16(chunk_delta, gated(x, kind, "mild"))


COLUMNS = ("0", "-20", "mixed", "mild")  # gates of value channels


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_decays_of_value_channels_agree(
    dims: tuple[int, int], columns: str, kind: str | None
) -> None:
    x = gated(random_inputs(200, *dims), kind, "mixed" if columns == "mixed" else "mild")
    x["value_log_decay"] = log_decay_of(columns, *x["v"].shape)
    assert_agrees_in_bfloat16(chunk_delta, x)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("kind", "gate"), [(None, "0"), ("scalar", "mixed"), ("channel", "-20")])
def test_decays_of_value_channels_agree_in_float32(
    columns: str, kind: str | None, gate: str
) -> None:
    x = gated(random_inputs(130, 100, 36, erase_key=True), kind, gate)
    x["value_log_decay"] = log_decay_of(columns, *x["v"].shape)
    assert_agrees_in_float32(chunk_delta, x)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_decays_of_value_channels_agree_with_several_steps_a_token(
    columns: str, kind: str | None
) -> None:
    x = random_inputs(67, 64, 64, steps=3, erase_key=True, strongest=1.0)
    x = gated(x, kind, "mixed")
    x["value_log_decay"] = log_decay_of(columns, 2, 67, 2, 64)
    assert_agrees_in_bfloat16(chunk_delta, x)


def test_keys_far_from_unit_length_do_not_overflow() -> None:
    x = random_inputs(130, 64, 64)
    x["k"], x["beta"] = 1000 * x["k"], 1e-6 * x["beta"]
    assert_agrees_in_bfloat16(chunk_delta, x, bar=1e-2)


EVERY = [None, *KINDS, "values", "both"]  # kinds of gates


def cuda_inputs(kind: str | None) -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    x["k"] = F.normalize(x["k"], dim=-1)
    x["beta"] = torch.rand(rows, device="cuda")
    shapes = {"scalar": rows, "channel": (*rows, 64), "both": (*rows, 64)}
    if kind in shapes:
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    if kind in ("values", "both"):
        x["value_log_decay"] = -0.3 * torch.rand(*rows, 64, device="cuda")
    return x


@pytest.mark.parametrize("kind", EVERY)
def test_slices_of_one_projection_give_what_copies_give(kind: str | None) -> None:
    assert_slices_give_the_same(chunk_delta, cuda_inputs(kind))


@pytest.mark.parametrize("kind", EVERY)
def test_what_comes_after_does_not_change_how_a_token_rounds(kind: str | None) -> None:
    assert_what_comes_after_changes_nothing(chunk_delta, cuda_inputs(kind), cuda_inputs(kind))


@pytest.mark.parametrize("kind", EVERY)
def test_a_training_step_is_captured_in_a_cuda_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_a_graph_gives_the_same(lambda: step(chunk_delta, x))


@pytest.mark.parametrize("kind", EVERY)
def test_a_training_step_is_compiled_as_one_graph(kind: str | None) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    assert_compiled_gives_the_same(chunk_delta, x)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda"])
def test_baselines_run_on_triton_under_autocast(name: str) -> None:
    assert_a_baseline_agrees(name)
