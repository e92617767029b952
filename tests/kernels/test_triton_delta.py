"""What chunk_delta's Triton form does not take, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.kernels import chunk_delta
from linearch.kernels.forms import force_form


def tensors(*, key_dim: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    q, k = torch.randn(2, 1, 3, 2, key_dim, dtype=dtype)
    return [q, k, torch.randn(1, 3, 2, 4, dtype=dtype), torch.rand(1, 3, 2)]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"key_dim": 300}, "takes K up to 256, and K is 300"),
        ({"dtype": torch.float64}, "takes bfloat16 and float32, and an argument is float64"),
        ({}, "form is 'triton', which this call does not have"),
    ],
)
def test_what_the_triton_form_does_not_take_is_named(shape: dict[str, Any], message: str) -> None:
    x = tensors(**shape)
    with pytest.raises(ValueError, match=message):
        chunk_delta(*x, form="triton")
    with force_form("triton"):
        forced, _ = chunk_delta(*x)
    assert torch.equal(forced, chunk_delta(*x, form="chunked")[0])
