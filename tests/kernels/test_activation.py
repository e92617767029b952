"""activation: the formulas against torch's own, the torch form against the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import activation
from linearch.kernels.checks import Arguments
from linearch.kernels.pointwise import Function, along

FLOAT64 = torch.float64
TORCHS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu_plus_one": lambda x: F.elu(x) + 1,
    "exp": torch.exp,
    "log_sigmoid": F.logsigmoid,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "squared_relu": lambda x: F.relu(x) ** 2,
}


@pytest.mark.parametrize("function", get_args(Function))
def test_the_formulas_are_torchs_functions_after_the_bias_times_the_rate(function: str) -> None:
    x, (bias, rate) = torch.randn(2, 3, 8, dtype=FLOAT64), torch.randn(2, 8, dtype=FLOAT64)
    got = activation(x, function, bias=bias, rate=rate, form="naive")
    torch.testing.assert_close(got, rate * TORCHS[function](x + bias))


def test_leading_axes_of_one_are_none_so_that_no_row_is_all_of_x() -> None:
    rate, x = torch.randn(1, 1, 3, 1), torch.randn(2, 5, 3, 4)
    broadcast = along(Arguments("activation"), "rate", rate, x)
    assert broadcast is not None
    assert torch.equal(broadcast, rate[0, 0].expand(3, 4))


def test_a_floor_is_what_a_gate_cannot_fall_below() -> None:
    x = torch.tensor([-800.0, 0.0, 40.0], dtype=FLOAT64)
    got = activation(x, "log_sigmoid", floor=0.25, form="naive")
    wanted = torch.tensor([0.25, 0.625, 1.0], dtype=FLOAT64).log()
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("function", get_args(Function))
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_activations_equal_the_formulas(
    function: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {
        "x": 3 * torch.randn(shape, dtype=FLOAT64),
        "bias": torch.randn(8, dtype=FLOAT64),
        "rate": torch.randn((*shape[-2:-1], 1), dtype=FLOAT64),
    }
    floors = (0.0, 0.3) if function == "log_sigmoid" else (0.0,)
    for floor in floors:
        errors = errors_against_naive(
            activation, inputs, dtype=dtype, function=function, floor=floor
        )
        assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_a_log_decay_stays_in_float32_where_the_projection_is_bfloat16(form: str) -> None:
    x = torch.randn(4).bfloat16()
    decay = activation(x, "softplus", rate=-1 / 16, out_dtype=torch.float32, form=form)
    assert decay.dtype == torch.float32
    torch.testing.assert_close(decay, -F.softplus(x.float()) / 16)
    assert activation(x, "silu", form=form).dtype == torch.bfloat16


def test_far_from_zero_nothing_overflows_and_small_gates_are_not_rounded_away() -> None:
    x = torch.tensor([-100.0, -40.0, 40.0, 100.0], requires_grad=True)
    softplus, gate = activation(x, "softplus"), activation(x, "log_sigmoid")
    assert softplus[1].item() == pytest.approx(math.exp(-40), rel=1e-5)
    assert gate[2].item() == pytest.approx(-math.exp(-40), rel=1e-5)
    (gradient,) = torch.autograd.grad((softplus + gate).sum(), x)
    assert gradient.isfinite().all()


def test_under_autocast_a_gate_is_not_rounded() -> None:
    x = torch.randn(8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = activation(x, "sigmoid", bias=torch.ones(8))
    torch.testing.assert_close(got, torch.sigmoid(x + 1), rtol=1e-6, atol=0)
