"""gated_product and swiglu: the formula against torch's own, the torch form against the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from linearch.kernels import gated_product, swiglu

FLOAT64 = torch.float64


def test_the_formula_is_x_times_the_activated_gate() -> None:
    x, gate = torch.randn(2, 3, 4, 8, dtype=FLOAT64)
    torch.testing.assert_close(gated_product(x, gate, form="naive"), x * F.silu(gate))
    opened = gated_product(x, gate, activation="sigmoid", form="naive")
    torch.testing.assert_close(opened, x * gate.sigmoid())


def test_a_skip_is_added_before_the_gate() -> None:
    x, gate, skip = torch.randn(3, 2, 3, 4, 8, dtype=FLOAT64)
    rate = torch.randn(4, 1, dtype=FLOAT64)
    wanted = (x + rate * skip) * F.silu(gate)
    got = gated_product(x, gate, skip=skip, skip_rate=rate, form="naive")
    torch.testing.assert_close(got, wanted)


def test_swiglu_activates_the_first_half() -> None:
    gate_up = torch.randn(3, 10, dtype=FLOAT64)
    wanted = F.silu(gate_up[:, :5]) * gate_up[:, 5:]
    torch.testing.assert_close(swiglu(gate_up, form="naive"), wanted)


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_products_equal_the_formula(
    activation: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {"x": torch.randn(shape, dtype=FLOAT64), "gate": torch.randn(shape, dtype=FLOAT64)}
    errors = errors_against_naive(gated_product, inputs, dtype=dtype, activation=activation)
    errors |= errors_against_naive(swiglu, {"gate_up": inputs["gate"]}, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("rate", [(), (8,), (4, 1), (4, 8)])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_products_with_a_skip_equal_the_formula(
    rate: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {name: torch.randn(2, 3, 4, 8, dtype=FLOAT64) for name in ("x", "gate", "skip")}
    inputs["skip_rate"] = torch.randn(rate, dtype=FLOAT64)
    errors = errors_against_naive(gated_product, inputs, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_a_product_has_the_dtype_of_x(form: str) -> None:
    x, gate = torch.randn(2, 4)
    assert gated_product(x.bfloat16(), gate, form=form).dtype == torch.bfloat16
    assert gated_product(x, gate.bfloat16(), form=form).dtype == torch.float32
