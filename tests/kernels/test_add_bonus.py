"""add_bonus: the formula against a loop over tokens, the torch form against the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from linearch.kernels import add_bonus, chunk_decay

FLOAT64 = torch.float64


def test_a_token_reads_its_own_value_by_the_weighted_product_of_query_and_key() -> None:
    o, v = torch.randn(2, 2, 3, 2, 5, dtype=FLOAT64)
    q, k = torch.randn(2, 2, 3, 2, 4, dtype=FLOAT64)
    bonus = torch.randn(2, 4, dtype=FLOAT64)
    y = add_bonus(o, q, k, v, bonus, scale=0.5, form="naive")
    share = q[1, 2, 0] @ (bonus[0] * k[1, 2, 0])
    torch.testing.assert_close(y[1, 2, 0], o[1, 2, 0] + 0.5 * share * v[1, 2, 0])


def test_it_is_what_a_recurrence_with_a_bonus_adds() -> None:
    q, k, v = torch.randn(3, 2, 40, 2, 4, dtype=FLOAT64)
    bonus, none = torch.randn(2, 4, dtype=FLOAT64), torch.zeros(2, 4, dtype=FLOAT64)
    with_bonus, _ = chunk_decay(q, k, v, bonus=bonus, scale=0.5)
    without, _ = chunk_decay(q, k, v, bonus=none, scale=0.5)
    torch.testing.assert_close(add_bonus(without, q, k, v, bonus, scale=0.5), with_bonus)


@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_the_torch_form_equals_the_formula(
    dtype: torch.dtype, bar: float, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    inputs = {
        "o": torch.randn(2, 9, 3, 5, dtype=FLOAT64),
        "q": torch.randn(2, 9, 3, 4, dtype=FLOAT64),
        "k": torch.randn(2, 9, 3, 4, dtype=FLOAT64),
        "v": torch.randn(2, 9, 3, 5, dtype=FLOAT64),
        "bonus": torch.randn(3, 4, dtype=FLOAT64),
    }
    errors = errors_against_naive(add_bonus, inputs, dtype=dtype, scale=0.5)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_the_sum_has_the_dtype_of_the_output_it_is_added_to(form: str) -> None:
    o, q, k, v = torch.randn(4, 1, 3, 2, 4)
    bonus = torch.randn(2, 4)
    assert add_bonus(o.bfloat16(), q, k, v, bonus, form=form).dtype == torch.bfloat16
    assert add_bonus(o, q.bfloat16(), k, v, bonus, form=form).dtype == torch.float32
