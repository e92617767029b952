"""token_shift: the loop against shifted rows, the torch form against the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.kernels import token_shift

FLOAT64 = torch.float64


def shift(**inputs: Any) -> tuple[Tensor, ...]:
    """Blends and the state as one tuple, as errors are compared."""
    blends, state = token_shift(**inputs)
    return *blends, state


def test_the_loop_takes_a_share_of_the_token_before() -> None:
    x, shares = torch.randn(2, 5, 4, dtype=FLOAT64), torch.rand(3, 4, dtype=FLOAT64)
    earlier = torch.cat((torch.zeros(2, 1, 4, dtype=FLOAT64), x[:, :-1]), dim=1)
    blends, state = token_shift(x, shares, form="naive")
    assert len(blends) == 3
    for blend, share in zip(blends, shares, strict=True):
        torch.testing.assert_close(blend, (1 - share) * x + share * earlier)
    assert torch.equal(state, x[:, -1:])


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_pieces_give_what_the_whole_gives(form: str) -> None:
    x, shares = torch.randn(2, 9, 4, dtype=FLOAT64), torch.rand(2, 4, dtype=FLOAT64)
    whole, last = token_shift(x, shares, form=form)
    first, state = token_shift(x[:, :4], shares, form=form)
    second, state = token_shift(x[:, 4:], shares, initial_state=state, form=form)
    for blend, *pieces in zip(whole, first, second, strict=True):
        torch.testing.assert_close(torch.cat(pieces, dim=1), blend)
    assert torch.equal(state, last)


@pytest.mark.parametrize("has_offsets", [False, True])
@pytest.mark.parametrize(("length", "n_blends"), [(1, 2), (2, 1), (65, 6)])
@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (FLOAT64, 1e-9), (torch.bfloat16, 1e-2)]
)
def test_blends_equal_the_loop(
    length: int,
    n_blends: int,
    has_offsets: bool,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    inputs = {
        "x": torch.randn(2, length, 8, dtype=FLOAT64),
        "shares": torch.rand(n_blends, 8, dtype=FLOAT64),
        "initial_state": torch.randn(2, 1, 8, dtype=FLOAT64),
    }
    if has_offsets:
        inputs["offsets"] = torch.randn(n_blends, 2, length, 8, dtype=FLOAT64)
    errors = errors_against_naive(shift, inputs, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_blends_have_the_dtype_of_x_and_the_state_storage_of_its_own(form: str) -> None:
    x = torch.randn(1, 3, 4).bfloat16()
    (blend,), state = token_shift(x, torch.rand(1, 4), form=form)
    assert (blend.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    assert state.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_a_blend_that_is_not_used_has_no_part_in_the_gradient() -> None:
    x, shares = torch.randn(1, 5, 4, requires_grad=True), torch.rand(2, 4, requires_grad=True)
    (_, second), _ = token_shift(x, shares)
    dx, dshares = torch.autograd.grad(second.sum(), (x, shares))
    (alone,), _ = token_shift(x, shares[1:])
    torch.testing.assert_close(dx, torch.autograd.grad(alone.sum(), x)[0])
    assert not dshares[0].any()
