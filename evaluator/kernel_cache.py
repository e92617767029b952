"""The compiled kernels that candidates' processes on a GPU share, and may only read.

Compiling takes a second to half a minute a kernel, and a candidate has half a dozen processes. So
trusted code compiles what heads of a run's size need, once a machine; what a candidate needs beside
it, it compiles for itself in each process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import RunConfig

if TYPE_CHECKING:
    from ..kernels.triton.warm import Case

KERNEL_CACHE = "LINEARCH_KERNEL_CACHE"  # in a child's environment: the folder

_FILLED = "filled-"  # how the names of marker files begin
_SOURCES = Path(__file__).parents[1] / "kernels" / "triton"
_RARE = "columns"  # what neither the library's mixers nor the grammar's have
_NOT_OF_THE_LIBRARY = ("product", "erase", "oja", "scan", "attention")
# What a mixer launches where the gate `stability` compares bfloat16 with float32.
_COMPARED_IN_FLOAT32 = (
    "norm",
    "convolution",
    "unit heads",
    "gated product",
    "skip product",
    "token shift",
    "bonus",
    "rotary",
    "strengths",
)
_MANAGER = "linearch.kernels.triton.shared_cache:SharedCache"


def is_shared(config: RunConfig, device: str) -> bool:
    """Whether children take Triton's form unasked: those that may compile what is missing."""
    return device == "cuda" and config.sandbox.profile == "compile"


def has_to_compile(config: RunConfig, device: str, folder: Path) -> bool:
    """Whether a run that keeps its files in `folder` begins with a minute or two of compilers.

    Not whether anything else is missing, which the processes on the GPU find out.
    """
    return is_shared(config, device) and not any(kernels_in(folder).glob(f"{_FILLED}*"))


def kernels_in(folder: Path) -> Path:
    return folder / "kernels"


def reading_from(folder: Path) -> dict[str, str]:
    """The environment of a process whose Triton reads `folder` and writes elsewhere."""
    return {KERNEL_CACHE: str(folder), "TRITON_CACHE_MANAGER": _MANAGER}


def kernel_cases(config: RunConfig) -> list[Case]:
    """What a run's baselines and most of its candidates launch, if it has any.

    K and V of a head: its width, half of it and twice as much, as the grammar and the baselines
    have them, and more columns for a normaliser. All of them at once would take minutes to compile.
    """
    import torch

    from ..kernels.normaliser import normalised_width
    from ..kernels.triton.warm import cases  # Triton, which CPU-only machines may lack

    model = config.model
    head = model.d_model // model.n_heads
    dims = [*product((head, head // 2), (head, 2 * head))]
    widths = sorted({head, 2 * head, model.d_model, 2 * model.d_model})
    in_float32 = cases(dims, (), [torch.float32], widths)
    if config.training.precision != "bf16":
        return in_float32
    compared = [case for case in in_float32 if case.operation in _COMPARED_IN_FLOAT32]
    with_normaliser = cases([(head, normalised_width(head, "triton"))], [torch.bfloat16], ())
    chosen = cases(dims, [torch.bfloat16], [torch.bfloat16], widths)
    chosen = [case for case in chosen if case.operation != _RARE]
    chosen += [case for case in with_normaliser if _adds_only(case) and case not in chosen]
    chosen += compared
    if config.budget.max_candidates == 0:
        return [case for case in chosen if _is_of_the_library(case, head)]
    return chosen


def _is_of_the_library(case: Case, head: int) -> bool:
    """What a run that proposes nothing needs: its deltas have heads of one width."""
    if case.operation in ("delta", "dplr"):
        return case.dim == case.value_dim == head
    return case.operation not in _NOT_OF_THE_LIBRARY


def _adds_only(case: Case) -> bool:
    """Plain linear attention, which is what is divided by a normaliser."""
    return (case.operation, case.gate) == ("decay", None)


def fill(folder: Path, chosen: Sequence[Case], capability: int) -> None:
    """Compiles what is not there for a GPU of this compute capability (90 for 9.0).

    Several processes may ask at once: one compiles, on every core, and the others wait. A kernel
    that cannot be compiled is left to the candidates that need it.
    """
    from ..kernels.triton.warm import warm

    done = folder / f"{_FILLED}{_identity(chosen, capability)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not done.exists():
            for _ in warm(capability, os.cpu_count() or 1, chosen, folder):
                pass
            done.touch()


def _identity(chosen: Sequence[Case], capability: int) -> str:
    """Of what would be compiled, by what, from which source and in which configurations."""
    said = repr((metadata.version("triton"), capability, [str(case) for case in chosen]))
    digest = hashlib.sha256(said.encode())
    for path in sorted([*_SOURCES.glob("*.py"), *_SOURCES.glob("*.json")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, by a death too
        yield
