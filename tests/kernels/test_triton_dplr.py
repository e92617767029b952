"""chunk_dplr's Triton form run by Triton's interpreter at tiny sizes on a CPU; what a GPU runs."""

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

from linearch.kernels import chunk_dplr, dplr, forms
from linearch.kernels.forms import force_form

SCRIPT = Path(__file__).parent / "interpreted_dplr.py"
IN_FLOAT32, IN_BFLOAT16 = 14, 2  # cases; the interpreter has no products of bfloat16


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
    assert not {name: e for name, e in rough.items() if not all(x < 5e-3 for x in e.values())}


def tensors(*, key_dim: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    q, k, a, b = 0.5 * torch.randn(4, 1, 3, 2, key_dim, dtype=dtype)
    return [q, k, torch.randn(1, 3, 2, 4, dtype=dtype), a, b]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"key_dim": 300}, "chunk_dplr: the Triton form takes K up to 256, and K is 300"),
        ({"dtype": torch.float64}, "takes bfloat16 and float32, and an argument is float64"),
        ({}, "form is 'triton', which this call does not have"),
    ],
)
def test_what_the_triton_form_does_not_take_is_named(shape: dict[str, Any], message: str) -> None:
    x = tensors(**shape)
    with pytest.raises(ValueError, match=message):
        chunk_dplr(*x, form="triton")
    with force_form("triton"):
        forced, _ = chunk_dplr(*x)
    assert torch.equal(forced, chunk_dplr(*x, form="chunked")[0])


def test_a_gpu_takes_delta_steps_where_no_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "runs_triton", lambda device: True)
    monkeypatch.setattr(forms, "_can_compile", True)
    v, gpu = torch.zeros(1, 3, 2, 4), torch.device("cuda")
    assert dplr._delta_steps_are_best(v.bfloat16(), gpu)
    assert not dplr._delta_steps_are_best(v, gpu)
    assert not dplr._delta_steps_are_best(v.bfloat16(), torch.device("cpu"))
    with force_form("chunked"):
        assert not dplr._delta_steps_are_best(v.bfloat16(), gpu)
