"""The configurations that `linearch bench tune` measured: chip, kernel, size class, configuration.

configs.json is written by that tool alone, and every entry was compared with the float64 loop on
its chip. A launch that it has no entry for takes the rules of configs.py and delta_configs.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton

GATES = ("none", "scalar", "channel")  # by the kernels' GATE
PATH = Path(__file__).with_name("configs.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A kernel's tile and how it is compiled.

    block_m: keys, or a sweep's rows, or queries; block_n: values, or a sweep's outputs, or keys.
    """

    block_m: int
    block_n: int
    num_warps: int = 4
    num_stages: int
    max_registers: int | None = None  # of a thread; None: as many as the compiler likes

    def compiled(self) -> dict[str, int | None]:
        """The arguments of a launch that are the compiler's."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "maxnreg": self.max_registers,
        }

    def tile(self, key_dim: int, value_dim: int) -> dict[str, int | bool]:
        """The arguments of a launch that cuts keys into block_m and values into block_n."""
        return {
            "BK": self.block_m,
            "BV": self.block_n,
            "EVEN_K": key_dim % self.block_m == 0,
            "EVEN_V": value_dim % self.block_n == 0,
        }

    def __str__(self) -> str:
        limit = "" if self.max_registers is None else f", {self.max_registers} registers"
        return (
            f"{self.block_m}x{self.block_n}, {self.num_warps} warps, stages {self.num_stages}"
            + limit
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """What one configuration is for: a kernel at one size class.

    Sizes are exact, because no others were checked.
    """

    kernel: str  # "decay pull"
    gate: int  # the kernels' GATE
    key_dim: int
    value_dim: int
    dtype: torch.dtype  # of v

    @property
    def size_class(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{GATES[self.gate]}, {self.key_dim}x{self.value_dim}, {dtype}"

    @staticmethod
    def parse(kernel: str, size_class: str) -> Launch:
        gate, dims, dtype = size_class.split(", ")
        key_dim, value_dim = (int(size) for size in dims.split("x"))
        return Launch(kernel, GATES.index(gate), key_dim, value_dim, getattr(torch, dtype))

    def __str__(self) -> str:
        return f"{self.kernel}, {self.size_class}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Where an entry comes from: µs of the pass that it was chosen by, and of the one before it."""

    device: str
    torch: str
    triton: str
    date: str
    shape: tuple[int, int, int, int]  # [B, T, H, K = V]
    us: float
    before_us: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    config: Config
    measured: Measured


Table = dict[str, dict[Launch, Entry]]  # by chip


def read(path: Path = PATH) -> Table:
    """ValueError or TypeError for what is not a table."""
    return {
        chip: {
            Launch.parse(kernel, size_class): _entry(**written)
            for kernel, of_kernel in kernels.items()
            for size_class, written in of_kernel.items()
        }
        for chip, kernels in json.loads(path.read_text(encoding="utf-8")).items()
    }


def _entry(config: dict[str, Any], measured: dict[str, Any]) -> Entry:
    shape = tuple(measured.pop("shape"))
    return Entry(config=Config(**config), measured=Measured(shape=shape, **measured))


def write(table: Table, path: Path = PATH) -> None:
    written: dict[str, dict[str, dict[str, Any]]] = {}
    for chip, entries in sorted(table.items()):
        for launch, entry in sorted(entries.items(), key=lambda pair: str(pair[0])):
            of_kernel = written.setdefault(chip, {}).setdefault(launch.kernel, {})
            of_kernel[launch.size_class] = asdict(entry)
    path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_measured: Mapping[str, Mapping[Launch, Entry]] = read()
_on_trial: dict[Launch, Config] = {}


def chosen(launch: Launch, rule: Config) -> Config:
    """What `launch` takes on the chip that kernels are compiled for: the table's, or the rule's."""
    if launch in _on_trial:
        return _on_trial[launch]
    if not _measured:  # asking the driver for its chip takes time at every launch
        return rule
    entry = _measured.get(chip(), {}).get(launch)
    return rule if entry is None else entry.config


@contextmanager
def trying(configs: Mapping[Launch, Config]) -> Iterator[None]:
    """Launches inside take these, whatever the table says."""
    _on_trial.update(configs)
    try:
        yield
    finally:
        for launch in configs:
            del _on_trial[launch]


def chip() -> str:
    """Of the target that Triton's driver names, a stand-in's too: "sm_90"; "interpreter"."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "interpreter"
    return f"sm_{triton.runtime.driver.active.get_current_target().arch}"
