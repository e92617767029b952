"""scaled_heads: the formula against products by head, the torch form against the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from linearch.kernels import scaled_heads

FLOAT64 = torch.float64


def test_each_head_is_the_one_of_its_group_times_its_strength() -> None:
    x, strength = torch.randn(2, 3, 2, 5, dtype=FLOAT64), torch.randn(2, 3, 6, dtype=FLOAT64)
    y = scaled_heads(x, strength, form="naive")
    for head in range(6):
        torch.testing.assert_close(y[:, :, head], strength[:, :, head, None] * x[:, :, head // 3])


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_the_torch_form_equals_the_formula(
    heads: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {
        "x": torch.randn(2, 9, heads, 5, dtype=FLOAT64),
        "strength": torch.randn(2, 9, 6, dtype=FLOAT64),
    }
    errors = errors_against_naive(scaled_heads, inputs, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_scaled_heads_have_the_dtype_of_x(form: str) -> None:
    x, strength = torch.randn(1, 3, 1, 4), torch.randn(1, 3, 2)
    assert scaled_heads(x.bfloat16(), strength, form=form).dtype == torch.bfloat16
