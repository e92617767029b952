"""`linearch bench warm`: kernels compiled with no GPU are those that a GPU's process looks for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HAS_TRITON = importlib.util.find_spec("triton") is not None
TRAINING_STEP = """
import triton
missed = []
def listen(src, metadata, metadata_group, times, cache_hit):
    missed.extend([] if cache_hit else [metadata["name"]])
triton.knobs.compilation.listener = listen
import torch
from linearch.kernels import chunk_decay
rows = (2, 200, 3)
q, k, v = (torch.randn(*rows, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
           for _ in range(3))
g = (-torch.rand(rows, device="cuda")).requires_grad_()
chunk_decay(q, k, v, g, form="triton")[0].sum().backward()
print(missed)
"""


def run(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=os.environ | {"TRITON_CACHE_DIR": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def warm(folder: Path, case: str) -> dict[str, object]:
    arguments = ("bench", "warm", "--jobs", "1", "--operation", case, "--json")
    out = run(folder, "-m", "linearch.cli", *arguments, CUDA_VISIBLE_DEVICES="")
    summary: dict[str, object] = json.loads(out.splitlines()[-1])
    return summary


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
def test_kernels_are_compiled_into_the_cache_with_no_gpu(tmp_path: Path) -> None:
    summary = warm(tmp_path, "decay none, 32, bfloat16, T 128")
    assert summary["failures"] == {}
    assert len([path for path in files(tmp_path) if path.suffix == ".cubin"]) == summary["kernels"]


@pytest.mark.gpu
def test_a_training_step_finds_all_of_its_kernels_in_a_warmed_cache(tmp_path: Path) -> None:
    assert warm(tmp_path, "decay scalar, 32, bfloat16, T 128")["failures"] == {}
    before = files(tmp_path)
    assert run(tmp_path, "-c", TRAINING_STEP).strip() == "[]"
    assert files(tmp_path) == before
