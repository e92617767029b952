"""chunk_oja's Triton form run by Triton's interpreter at tiny sizes on a CPU; who gets it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from linearch.kernels import chunk_oja, forms, oja

SCRIPT = Path(__file__).parent / "interpreted_oja.py"
IN_FLOAT32, IN_BFLOAT16 = 20, 2  # cases; the interpreter has no products of bfloat16

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@needs_triton
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


def test_values_too_wide_for_the_triton_form_are_named() -> None:
    q, v = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 300)
    with pytest.raises(ValueError, match=r"chunk_oja: .* takes V up to 256, and V is 300"):
        chunk_oja(q, q, v, torch.rand(1, 3, 2), form="triton")


@pytest.mark.parametrize(("unchecked", "taken"), [({"chunk_oja"}, "chunked"), (set(), "triton")])
def test_a_gpu_takes_it_unasked_once_it_was_checked(
    unchecked: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oja, "UNCHECKED", unchecked)
    monkeypatch.setattr(forms, "runs_triton", lambda device: True)
    monkeypatch.setattr(forms, "_can_compile", True)
    found: list[str] = []

    def choose(*args: object, **kwargs: object) -> str:
        kwargs["fused_on"] = torch.device("cuda")
        found.append(forms.choose_form(*args, **kwargs))  # type: ignore[arg-type]
        return "chunked"

    monkeypatch.setattr(oja, "choose_form", choose)
    q, k, v = torch.randn(3, 1, 3, 2, 4, dtype=torch.bfloat16).unbind()
    chunk_oja(q, k, v, torch.rand(1, 3, 2))
    assert found == [taken]
