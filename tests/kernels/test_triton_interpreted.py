"""The Triton forms run by Triton's interpreter on a CPU, at tiny sizes, against the loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from linearch.kernels import chunk_decay
from linearch.kernels.forms import force_form

# script, its cases in float32 and in bfloat16 (of which the interpreter has no products), and what
# a gradient in bfloat16 may be off by
SCRIPTS = [
    ("decay", 34, 0, 1e-2),
    ("layers", 87, 0, 1e-2),
    ("delta", 35, 5, 1e-2),
    ("dplr", 14, 2, 5e-3),
    ("oja", 20, 2, 1e-2),
]


@pytest.mark.parametrize(
    ("script", "in_float32", "in_bfloat16", "bar"), SCRIPTS, ids=[script for script, *_ in SCRIPTS]
)
def test_the_interpreted_kernels_equal_the_loop(
    script: str,
    in_float32: int,
    in_bfloat16: int,
    bar: float,
    interpreted: Callable[[str], Any],
) -> None:
    errors = interpreted(f"interpreted_{script}")
    rough = {name: e for name, e in errors.items() if name.startswith("bfloat16")}
    exact = {name: e for name, e in errors.items() if name not in rough}
    assert (len(exact), len(rough)) == (in_float32, in_bfloat16)
    assert not {name: e for name, e in exact.items() if not all(x < 1e-5 for x in e.values())}
    for name, e in rough.items():
        bars = {key: 5e-3 if key.startswith("output") else bar for key in e}
        assert all(x < bars[key] for key, x in e.items()), (name, e)


def test_operators_have_the_fakes_and_gradients_that_torch_checks(
    interpreted: Callable[[str], Any],
) -> None:
    found = interpreted("interpreted_operators")
    assert len(found) == 29
    assert {outcome for checks in found.values() for outcome in checks.values()} == {"SUCCESS"}


def test_a_cpu_takes_triton_neither_by_itself_nor_on_demand() -> None:
    q, k, v = torch.randn(3, 1, 40, 2, 4).unbind()
    with pytest.raises(ValueError, match="form is 'triton', which this call does not have"):
        chunk_decay(q, k, v, form="triton")
    chunked, _ = chunk_decay(q, k, v, form="chunked")
    with force_form("triton"):
        assert torch.equal(chunk_decay(q, k, v)[0], chunked)
    assert torch.equal(chunk_decay(q, k, v)[0], chunked)
