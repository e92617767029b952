"""chunk_delta's Triton form run by Triton's interpreter at tiny sizes on a CPU; its refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.kernels import chunk_delta
from linearch.kernels.forms import force_form

SCRIPT = Path(__file__).parent / "interpreted_delta.py"
IN_FLOAT32, IN_BFLOAT16 = 24, 4  # cases; the interpreter has no products of bfloat16


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_interpreted_kernels_equal_the_loop() -> None:
    """In a process of its own: Triton decides whether to interpret as it is imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    errors = json.loads(done.stdout)
    rough = {name: e for name, e in errors.items() if name.startswith("bfloat16")}
    exact = {name: e for name, e in errors.items() if name not in rough}
    assert (len(exact), len(rough)) == (IN_FLOAT32, IN_BFLOAT16)
    assert not {name: e for name, e in exact.items() if not all(x < 1e-5 for x in e.values())}
    for name, e in rough.items():
        of_outputs = {key: x for key, x in e.items() if not key.startswith("d")}
        assert all(x < 5e-3 for x in of_outputs.values()), (name, e)
        assert all(x < 1e-2 for x in e.values()), (name, e)


def test_decays_of_value_channels_have_no_triton_form() -> None:
    x = tensors()
    decays = -torch.rand_like(x[2])
    with pytest.raises(ValueError, match="form is 'triton', which this call does not have"):
        chunk_delta(*x, value_log_decay=decays, form="triton")
    with force_form("triton"):
        forced, _ = chunk_delta(*x, value_log_decay=decays)
    assert torch.equal(forced, chunk_delta(*x, value_log_decay=decays, form="chunked")[0])


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
