"""What the scripts share that run Triton's kernels in its interpreter, by themselves or for a test.

TRITON_INTERPRET=1 must be set before Triton is imported, so each runs in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from comparing import Operation, Tensors, relative_errors, results
from torch.utils import deterministic


def set_up() -> None:
    """One thread; memory not yet written is NaN, so that a place a kernel leaves out is seen."""
    torch.set_num_threads(1)
    deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def print_errors(
    errors: Callable[..., dict[str, float]], cases: Mapping[str, tuple[Any, ...]]
) -> None:
    """Each case's errors as JSON: of all cases, or of those named on the command line."""
    set_up()
    wanted = sys.argv[1:] or list(cases)
    print(json.dumps({name: errors(*cases[name]) for name in wanted}))


def errors_of_triton(operation: Operation, x: Tensors, **options: Any) -> dict[str, float]:
    """Relative errors of the Triton form, as x is, against the naive form in float64."""
    in_float64 = {name: t.double() for name, t in x.items()}
    wanted = results(operation, in_float64, form="naive", **options)
    return relative_errors(results(operation, x, form="triton", **options), wanted)
