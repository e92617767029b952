"""What chunk_oja's Triton form does not take."""

from __future__ import annotations

import pytest
import torch

from linearch.kernels import chunk_oja


def test_values_too_wide_for_the_triton_form_are_named() -> None:
    q, v = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 300)
    with pytest.raises(ValueError, match=r"chunk_oja: .* takes V up to 256, and V is 300"):
        chunk_oja(q, q, v, torch.rand(1, 3, 2), form="triton")
