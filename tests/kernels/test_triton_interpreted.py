"""The Triton forms run by Triton's interpreter on a CPU, at tiny sizes, against the loops."""

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

from linearch.kernels import chunk_decay
from linearch.kernels.forms import force_form

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def interpreted(script: str) -> Any:
    """In a process of its own: Triton decides whether to interpret as it is imported."""
    path = Path(__file__).parent / f"interpreted_{script}.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", path],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("script", "cases"), [("decay", 30), ("layers", 62)])
@needs_triton
def test_the_interpreted_kernels_equal_the_loop(script: str, cases: int) -> None:
    errors = interpreted(script)
    wrong = {name: e for name, e in errors.items() if not all(x < 1e-5 for x in e.values())}
    assert len(errors) == cases
    assert not wrong


@needs_triton
def test_operators_have_the_fakes_and_gradients_that_torch_checks() -> None:
    found = interpreted("operators")
    assert len(found) == 13
    assert {outcome for checks in found.values() for outcome in checks.values()} == {"SUCCESS"}


def test_a_cpu_takes_triton_neither_by_itself_nor_on_demand() -> None:
    q, k, v = torch.randn(3, 1, 40, 2, 4).unbind()
    with pytest.raises(ValueError, match="form is 'triton', which this call does not have"):
        chunk_decay(q, k, v, form="triton")
    chunked, _ = chunk_decay(q, k, v, form="chunked")
    with force_form("triton"):
        assert torch.equal(chunk_decay(q, k, v)[0], chunked)
    assert torch.equal(chunk_decay(q, k, v)[0], chunked)
