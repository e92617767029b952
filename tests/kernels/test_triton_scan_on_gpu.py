"""On an NVIDIA GPU scan's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from on_gpu import (
    BFLOAT16,
    assert_a_graph_gives_the_same,
    assert_agrees_in_float32,
    assert_compiled_gives_the_same,
    assert_strided_gives_the_same,
    step,
)
from torch import Tensor
from torch.utils import deterministic

from linearch.kernels import scan

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT32, FLOAT64 = torch.float32, torch.float64
GATES = ("0", "-20", "mixed", "mild", "-inf")
Errors = Callable[..., dict[str, float]]
LogDecays = Callable[..., Tensor]


def random_inputs(length: int, width: int, log_decay: Tensor, batch: int = 2) -> dict[str, Tensor]:
    return {
        "x": torch.randn(batch, length, width, dtype=FLOAT64),
        "log_decay": log_decay,
        "initial_state": torch.randn(batch, width, dtype=FLOAT64),
    }


def in_float32_but_for_x(**x: Tensor) -> tuple[Tensor, Tensor]:
    """As a layer under autocast calls it: gates and states stay float32."""
    wide = {} if x["x"].dtype == FLOAT64 else {"log_decay": x["log_decay"].float()}
    return scan(**(x | wide))


def assert_close_in_bfloat16(errors: dict[str, float]) -> None:
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize("width", [1, 64, 100])
@pytest.mark.parametrize("gate", GATES)
def test_bfloat16_agrees(
    gate: str, width: int, errors_against_naive: Errors, log_decay_of: LogDecays
) -> None:
    x = random_inputs(200, width, log_decay_of(gate, 2, 200, width))
    errors = errors_against_naive(
        in_float32_but_for_x, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert_close_in_bfloat16(errors)


def test_bfloat16_gates_agree(errors_against_naive: Errors, log_decay_of: LogDecays) -> None:
    x = random_inputs(200, 64, log_decay_of("mild", 2, 200, 64))
    errors = errors_against_naive(scan, x, dtype=BFLOAT16, device="cuda", form="triton")
    assert_close_in_bfloat16(errors)


@pytest.mark.parametrize("width", [1, 64, 100])
@pytest.mark.parametrize("gate", GATES)
def test_float32_agrees(gate: str, width: int, log_decay_of: LogDecays) -> None:
    x = random_inputs(200, width, log_decay_of(gate, 2, 200, width))
    assert_agrees_in_float32(scan, x)


@pytest.mark.parametrize("length", [1, 63, 65, 127, 128, 129, 1000])
def test_any_length_agrees(
    length: int, errors_against_naive: Errors, log_decay_of: LogDecays
) -> None:
    x = random_inputs(length, 64, log_decay_of("mixed", 2, length, 64))
    assert_agrees_in_float32(scan, x)
    errors = errors_against_naive(
        in_float32_but_for_x, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert_close_in_bfloat16(errors)


@pytest.mark.parametrize("gate", ["mixed", "mild", "-0.01"])
@pytest.mark.parametrize("length", [1024, 3000])
def test_segments_of_one_sequence_agree(length: int, gate: str, log_decay_of: LogDecays) -> None:
    """Few long sequences are cut into segments, each of which starts from those before it."""
    x = random_inputs(length, 40, log_decay_of(gate, 1, length, 40), batch=1)
    assert_agrees_in_float32(scan, x)


def test_more_channels_than_processors_take_agree(log_decay_of: LogDecays) -> None:
    x = random_inputs(300, 2048, log_decay_of("mixed", 5, 300, 2048), batch=5)
    assert_agrees_in_float32(scan, x)


@pytest.mark.parametrize("length", [1, 65, 1500])
def test_a_constant_decay_agrees(length: int, log_decay_of: LogDecays) -> None:
    x = random_inputs(length, 40, log_decay_of("mild", 40))
    assert_agrees_in_float32(scan, x)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_alone_has_its_gradients(used: int, log_decay_of: LogDecays) -> None:
    x = random_inputs(65, 40, log_decay_of("mild", 2, 65, 40))
    assert_agrees_in_float32(lambda **inputs: scan(**inputs)[used], x)


def cuda_inputs() -> dict[str, Tensor]:
    return {
        "x": torch.randn(2, 1100, 96, device="cuda", dtype=BFLOAT16),
        "log_decay": -0.3 * torch.rand(2, 1100, 96, device="cuda"),
        "initial_state": torch.randn(2, 96, device="cuda"),
    }


def test_slices_and_transposes_give_what_copies_give() -> None:
    x = cuda_inputs()
    slices = {n: torch.cat((t, t), dim=-1)[..., : t.shape[-1]] for n, t in x.items()}
    transposes = {n: t.mT.contiguous().mT for n, t in x.items()}
    for strided in (slices, transposes):
        assert not any(t.is_contiguous() for t in strided.values())
        assert_strided_gives_the_same(scan, x, strided)


def test_a_training_step_is_captured_in_a_cuda_graph() -> None:
    x = {n: t.requires_grad_() for n, t in cuda_inputs().items()}
    assert_a_graph_gives_the_same(lambda: step(scan, x), rtol=0, atol=0)


def test_a_training_step_is_compiled_as_one_graph() -> None:
    x = {n: t.requires_grad_() for n, t in cuda_inputs().items()}
    assert_compiled_gives_the_same(scan, x)


def test_more_than_two_to_the_31_elements_are_addressed(
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    deterministic.fill_uninitialized_memory = False
    x = torch.randn(1, 2**17 + 5, 2**14 + 16, device="cuda", dtype=BFLOAT16)
    g = torch.rand(x.shape, device="cuda").mul_(-0.1)
    assert x.numel() > 2**31

    def run(channels: slice) -> tuple[Tensor, ...]:
        leaves = [t[..., channels].detach().requires_grad_() for t in (x, g)]
        h, state = scan(leaves[0], leaves[1], form="triton")
        grads = torch.autograd.grad(h, leaves, h.detach())
        return tuple(t[..., -16:].clone() for t in (h.detach(), state, *grads))

    for a, b in zip(run(slice(None)), run(slice(-16, None)), strict=True):
        assert relative_error(a, b) < 5e-3  # channels alone are summed in segments
