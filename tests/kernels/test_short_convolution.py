"""short_convolution: the loop against torch's conv1d, the shifted form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import short_convolution

FLOAT64 = torch.float64


def random_inputs(length: int, width: int) -> dict[str, Tensor]:
    return {
        "x": torch.randn(2, length, 6, dtype=FLOAT64),
        "weight": torch.randn(6, width, dtype=FLOAT64),
        "bias": torch.randn(6, dtype=FLOAT64),
        "initial_state": torch.randn(2, width - 1, 6, dtype=FLOAT64),
    }


def test_the_loop_is_torch_s_depthwise_convolution() -> None:
    inputs = random_inputs(9, width=4)
    y, state = short_convolution(**inputs, activation="silu", form="naive")
    seen = torch.cat((inputs["initial_state"], inputs["x"]), dim=1)
    weight, bias = inputs["weight"], inputs["bias"]
    wanted = F.silu(F.conv1d(seen.mT, weight[:, None], bias, groups=6)).mT
    torch.testing.assert_close(y, wanted)
    assert torch.equal(state, seen[:, -3:])


@pytest.mark.parametrize("length", [1, 2, 63, 130])
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_shifted_form_equals_the_loop(
    length: int,
    width: int,
    activation: str | None,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = random_inputs(length, width)
    errors = errors_against_naive(short_convolution, inputs, dtype=dtype, activation=activation)
    assert max(errors.values()) < bar, errors


def test_the_loops_heads_have_unit_length_and_other_channels_are_as_they_were() -> None:
    inputs = random_inputs(9, width=4)
    plain, state = short_convolution(**inputs, activation="silu", form="naive")
    y, same_state = short_convolution(
        **inputs, activation="silu", normalise=4, head_dim=2, eps=0.0, form="naive"
    )
    first, second, others = y[..., :2], y[..., 2:4], y[..., 4:]
    torch.testing.assert_close(first, F.normalize(plain[..., :2], dim=-1))
    torch.testing.assert_close(second, F.normalize(plain[..., 2:4], dim=-1))
    assert torch.equal(others, plain[..., 4:])
    assert torch.equal(state, same_state)


@pytest.mark.parametrize("length", [1, 2, 63])
@pytest.mark.parametrize(("n_channels", "head_dim"), [(4, 2), (6, 3), (1, 1)])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_shifted_form_s_heads_equal_the_loop_s(
    length: int,
    n_channels: int,
    head_dim: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs, heads = random_inputs(length, 4), {"normalise": n_channels, "head_dim": head_dim}
    errors = errors_against_naive(
        short_convolution, inputs, dtype=dtype, activation="silu", eps=1e-2, **heads
    )
    assert max(errors.values()) < bar, errors


def test_a_head_of_zeros_stays_zero_with_finite_gradients() -> None:
    x = torch.zeros(2, 5, 6, requires_grad=True)
    y, _ = short_convolution(x, torch.randn(6, 4), normalise=6, head_dim=3)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 5, 6))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_without_bias_and_state_the_past_is_zero(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = random_inputs(20, width=3)
    del inputs["bias"], inputs["initial_state"]
    errors = errors_against_naive(short_convolution, inputs)
    assert max(errors.values()) < 1e-4, errors
    first, _ = short_convolution(**inputs)
    torch.testing.assert_close(first[:, 0], inputs["x"][:, 0] * inputs["weight"][:, -1])


def test_streaming_in_pieces_equals_the_whole() -> None:
    x, weight = torch.randn(2, 20, 6), torch.randn(6, 4)
    whole, final = short_convolution(x, weight, activation="silu")
    state, pieces = None, []
    for start, end in [(0, 1), (1, 2), (2, 11), (11, 20)]:
        y, state = short_convolution(
            x[:, start:end], weight, activation="silu", initial_state=state
        )
        pieces.append(y)
        assert state.untyped_storage().nbytes() == state.numel() * 4
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    assert torch.equal(state, final)


def test_bfloat16_inputs_are_summed_in_float32() -> None:
    x = torch.randn(2, 30, 6, dtype=torch.bfloat16)
    weight = torch.randn(6, 4)
    y, state = short_convolution(x, weight)
    wanted, _ = short_convolution(x.double(), weight.double(), form="naive")
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-2, atol=1e-2)
