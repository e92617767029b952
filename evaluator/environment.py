"""Where a result comes from: versions, machine and containment, stored with it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .sandbox.containment import Containment


def environment(
    *,
    device: str,
    gpu_name: str | None,
    threads: int,
    corpus: str,
    sandbox: Containment,
    mps: bool = False,
) -> dict[str, Any]:
    """`device`: "cpu" or "cuda"; `corpus`: the hash of the data; `mps`: whether the GPU was shared
    by NVIDIA's service, which moves what is timed.
    """
    return {
        "linearch": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "machine": gpu_name or _cpu_name(),
        "threads": threads,
        "mps": mps,
        "corpus": corpus,
        "sandbox": sandbox.as_stored(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
