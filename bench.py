"""What `linearch bench` prints: the kernels' table, first steps, what warming a cache compiled."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from .errors import ConfigError, LinearchError, PreflightError

if TYPE_CHECKING:
    from .kernels.bench_cases import Shape
    from .kernels.forms import Form


def run_kernels(
    *,
    peer: bool,
    shapes: list[str],
    operations: list[str],
    form: Form | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Prints rows as they are measured; on the GPU if there is one and no device is named."""
    import torch

    from .kernels.bench import HEADER, LEGEND, line, measure
    from .kernels.bench_peer import peer_is_installed

    found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if found.type == "cuda" and not torch.cuda.is_available():
        raise PreflightError("there is no NVIDIA GPU here: leave --device out, or name cpu")
    if peer and (found.type != "cuda" or not peer_is_installed()):
        raise PreflightError(
            "--peer fla needs an NVIDIA GPU and the package flash-linear-attention: install it, or "
            "leave --peer out"
        )
    rows = measure(
        found,
        shapes=tuple(parse_shape(text) for text in shapes),
        operations=tuple(operations),
        form=form,
        with_peer=peer,
    )
    if found.type == "cpu":
        torch.set_num_threads(1)
    if not as_json:
        name = torch.cuda.get_device_name() if found.type == "cuda" else "CPU, one thread"
        print(f"{name}, torch {torch.__version__}\n{LEGEND}\n{HEADER}")
    for row in rows:
        print(json.dumps(asdict(row)) if as_json else line(row), flush=True)


def run_first(*, shapes: list[str], operations: list[str], as_json: bool) -> None:
    """Prints rows as they are measured, each in two processes of its own."""
    import torch

    from .kernels.bench_first import HEADER, LEGEND, FirstStepFailed, line, measure_first_steps
    from .kernels.forms import runs_triton

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not runs_triton(device):
        raise PreflightError("linearch bench first needs an NVIDIA GPU, and there is none here")
    steps = measure_first_steps(
        device,
        shapes=tuple(parse_shape(text) for text in shapes),
        operations=tuple(operations),
    )
    if not as_json:
        print(f"torch {torch.__version__}\n{LEGEND}\n{HEADER}")
    try:
        for step in steps:
            print(json.dumps(asdict(step)) if as_json else line(step), flush=True)
    except FirstStepFailed as error:
        raise LinearchError(str(error)) from error


def parse_shape(text: str) -> Shape:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise ConfigError(f"--shape is {text!r}; wanted four sizes B,T,H,K such as 8,1024,4,64")
    batch, length, heads, dim = (int(size) for size in sizes)
    return batch, length, heads, dim


def run_warm(*, arch: int, jobs: int | None, operations: list[str], as_json: bool) -> bool:
    """Fills Triton's cache; True if everything was compiled."""
    import os
    import time

    from .kernels.triton.warm import cases, warm

    start, failures = time.monotonic(), {}
    kernels: set[str] = set()
    launchers = 0
    chosen = [case for case in cases() if str(case).startswith(tuple(operations or [""]))]
    for done in warm(arch, jobs or os.cpu_count() or 1, chosen):
        kernels |= done.kernels
        launchers += done.launchers
        if done.failure is not None:
            failures[done.case] = done.failure
        if not as_json:
            print(f"{done.case}: {done.failure or f'{len(done.kernels)} kernels'}", flush=True)
    folder = os.environ.get("TRITON_CACHE_DIR", "~/.triton/cache")
    summary = {
        "arch": arch,
        "cache": folder,
        "kernels": len(kernels),
        "launchers": launchers,
        "seconds": round(time.monotonic() - start, 1),
        "failures": failures,
    }
    if as_json:
        print(json.dumps(summary))
    else:
        print(f"{len(kernels)} kernels for sm_{arch} in {folder}, {summary['seconds']} s")
    return not failures
