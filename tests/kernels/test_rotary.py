"""rotary: the loop against complex numbers, the torch form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from linearch.kernels import rotary

FLOAT64 = torch.float64


def test_the_loop_multiplies_by_complex_numbers_of_length_one() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=FLOAT64)
    angle = (7 + torch.arange(5.0))[:, None] * 100.0 ** (-torch.arange(4.0) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * angle.double())[:, None]
    wanted = torch.cat((turned.real, turned.imag), dim=-1)
    got = rotary(x, torch.tensor(7), base=100.0, form="naive")
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_the_torch_form_equals_the_loop(
    length: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {"x": torch.randn(2, length, 3, 6, dtype=FLOAT64)}
    errors = errors_against_naive(rotary, inputs, dtype=dtype, position=torch.tensor(1000))
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_products_know_the_distance_alone(form: str) -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=FLOAT64)
    near, far = (
        (rotary(q, torch.tensor(t + 3), form=form) * rotary(k, torch.tensor(t), form=form)).sum()
        for t in (0, 40)
    )
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-5)
