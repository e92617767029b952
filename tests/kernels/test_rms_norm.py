"""rms_norm and l2_norm: the formulas against torch's own, the fused form against the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from linearch.kernels import add_rms_norm, l2_norm, rms_norm
from linearch.kernels.forms import Form

FLOAT64 = torch.float64


def test_the_formula_is_torch_s_rms_norm_times_the_gate() -> None:
    x, weight, gate = (torch.randn(s, dtype=FLOAT64) for s in ((3, 4, 8), (8,), (3, 4, 8)))
    plain = F.rms_norm(x, (8,), weight, 1e-6)
    torch.testing.assert_close(rms_norm(x, weight, form="naive"), plain)
    gated = rms_norm(x, weight, gate=gate, form="naive")
    torch.testing.assert_close(gated, plain * F.silu(gate))
    opened = rms_norm(x, weight, gate=gate, activation="sigmoid", form="naive")
    torch.testing.assert_close(opened, plain * gate.sigmoid())


@pytest.mark.parametrize("gate", [None, "silu", "sigmoid"])
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_fused_form_equals_the_formula(
    gate: str | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {"x": torch.randn(shape, dtype=FLOAT64), "weight": torch.randn(8, dtype=FLOAT64)}
    if gate is not None:
        inputs["gate"] = torch.randn(shape, dtype=FLOAT64)
    errors = errors_against_naive(
        rms_norm, inputs, dtype=dtype, activation=gate or "silu", eps=1e-3
    )
    assert max(errors.values()) < bar, errors


def test_bfloat16_inputs_are_normalised_in_float32(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {
        "x": 100 * torch.randn(4, 64, dtype=FLOAT64),
        "weight": torch.randn(64, dtype=FLOAT64),
        "gate": torch.randn(4, 64, dtype=FLOAT64),
    }
    errors = errors_against_naive(rms_norm, inputs, dtype=torch.bfloat16)
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_the_sum_is_added_and_normalised_in_the_wider_dtype(form: Form) -> None:
    x, stream, weight = torch.randn(3, 8).bfloat16(), torch.randn(3, 8), torch.randn(8)
    y, total = add_rms_norm(x, stream, weight, out_dtype=torch.bfloat16, form=form)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, stream + x)
    assert torch.equal(y, rms_norm(total, weight, form=form).bfloat16())
    assert torch.equal(y, rms_norm(total, weight, out_dtype=torch.bfloat16, form=form))
    assert add_rms_norm(x, stream, weight, form=form)[0].dtype == torch.float32


@pytest.mark.parametrize("shape", [(8,), (2, 3, 4, 8)])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_norm_of_a_sum_has_the_formula_s_gradients(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {name: torch.randn(shape, dtype=FLOAT64) for name in ("x", "residual")}
    inputs["weight"] = torch.randn(8, dtype=FLOAT64)
    errors = errors_against_naive(add_rms_norm, inputs, dtype=dtype, eps=1e-3)
    assert max(errors.values()) < bar, errors


def test_the_formula_of_unit_length_is_torch_s_normalisation() -> None:
    x = torch.randn(3, 4, 8, dtype=FLOAT64)
    torch.testing.assert_close(l2_norm(x, eps=0.0, form="naive"), F.normalize(x, dim=-1))
    assert not l2_norm(torch.zeros(2, 8), form="naive").any()


@pytest.mark.parametrize("shape", [(8,), (2, 3, 4, 8)])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_rows_of_unit_length_equal_the_formula(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {"x": torch.randn(shape, dtype=FLOAT64)}
    errors = errors_against_naive(l2_norm, inputs, dtype=dtype, eps=1e-3)
    assert max(errors.values()) < bar, errors
    assert l2_norm(inputs["x"].to(dtype), out_dtype=torch.float32).dtype == torch.float32
