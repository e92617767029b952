"""One thread and a fixed seed for every test; what compares forms, and Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from siblings import load_siblings
from torch import Tensor
from torch.utils import deterministic

comparing, _ = load_siblings(__file__, "comparing", "on_gpu")


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    """So that a place which a kernel leaves out is seen."""
    deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    return comparing.relative_error


@pytest.fixture
def errors_against_naive() -> Callable[..., dict[str, float]]:
    return comparing.errors_against_naive


@pytest.fixture
def log_decay_of() -> Callable[..., Tensor]:
    return comparing.log_decay_of


@pytest.fixture
def interpreted() -> Callable[[str], Any]:
    """Runs a script beside this file where Triton interprets, and gives what it prints as JSON."""
    return lambda script: _printed_by(script, TRITON_INTERPRET="1")


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str], Any]:
    """Runs a script beside this file with an empty kernel cache; gives what it prints as JSON."""
    return lambda script: _printed_by(script, TRITON_CACHE_DIR=str(tmp_path))


def _printed_by(script: str, **environment: str) -> Any:
    """In a process of its own: Triton decides whether to interpret as it is imported."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name(f"{script}.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
