"""What `linearch bench tune` tries for each kernel: a dozen configurations or fewer beside today's.

Left out are those that were slower or wrong whenever they were tried: see docs/kernels.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import torch

from . import configs, delta_configs
from .config_table import GATES, Config, Launch

# In the order of the search: what takes most of an operation's time first.
KERNELS = {
    "decay": ("decay pull", "decay sweep", "decay sweep reversed"),
    "delta": ("delta pull", "delta backward", "delta forward", "delta solve", "delta pairs"),
}
FORWARD = ("decay sweep", "delta forward", "delta solve")  # these are judged by the forward pass
_WARPS, _STAGES = (4, 8), (1, 2, 3)
_REGISTERS = (None, 168)  # a thread; 168 leave room for three programs of 4 warps


def launches(operation: str, gate: str, dim: int) -> list[Launch]:
    """Of an operation with K = V = dim in bfloat16. Without a gate nothing is pulled in decay."""
    kernels = KERNELS[operation]
    if operation == "decay" and gate == "none":
        kernels = kernels[1:]
    return [Launch(kernel, GATES.index(gate), dim, dim, torch.bfloat16) for kernel in kernels]


def current(launch: Launch) -> Config:
    """What `launch` takes today, by the table or the rules."""
    size = (launch.key_dim, launch.value_dim, launch.dtype)
    match launch.kernel:
        case "decay sweep" | "decay sweep reversed":
            reverse = launch.kernel.endswith("reversed")
            return configs.sweep(*size, gate=launch.gate, reverse=reverse)
        case "decay pull":
            return configs.pull(*size, gate=launch.gate)
        case "delta solve":
            return delta_configs.solve(*size, launch.gate, is_plain=True)
        case "delta forward":
            return delta_configs.forward(*size, launch.gate, is_plain=True)
        case "delta backward":
            return delta_configs.backward(*size, launch.gate, is_plain=True)
        case "delta pairs":
            return delta_configs.pairs(*size, launch.gate, is_plain=True)
        case "delta pull":
            return delta_configs.pull(*size, launch.gate, is_plain=True)
    raise ValueError(f"no kernel is called {launch.kernel!r}")


def alternatives(launch: Launch, today: Config) -> list[Config]:
    """Other compilations of today's tile, and of a wider one where values are wide."""
    widens = launch.value_dim >= 128 and launch.kernel != "delta solve"
    wider = replace(today, block_n=128) if widens else today
    tried = [*_compilations(today), *(_compilations(wider, warps=(8,)) if wider != today else ())]
    return [
        config
        for config in tried
        if config != today and forbidden(launch, config) is None and not _is_known_slow(config)
    ]


def _compilations(tile: Config, warps: Iterable[int] = _WARPS) -> list[Config]:
    return [
        replace(tile, num_warps=n, num_stages=stages, max_registers=registers)
        for n, stages, registers in product(warps, _STAGES, _REGISTERS)
        if n == 4 or registers is None
    ]


def _is_known_slow(config: Config) -> bool:
    """Eight warps on a tile of 64 rows with three stages never fit beside a second program."""
    return config.num_warps == 8 and config.num_stages == 3


def forbidden(launch: Launch, config: Config) -> str | None:
    """Why a configuration may not be in the table, whatever it measures; None if it may."""
    numbers = (config.block_m, config.block_n, config.num_warps)
    if any(n < 1 or n & (n - 1) for n in numbers) or not 1 <= config.num_stages <= 4:
        return "blocks and warps are powers of two, stages 1 to 4"
    if config.max_registers is not None and not 32 <= config.max_registers <= 255:
        return "a thread has 32 to 255 registers"
    if launch.kernel in ("delta forward", "delta backward") and config.block_m < launch.key_dim:
        return "a program holds all rows of the state"
    if launch.kernel in ("delta solve", "delta pull") and config.block_m > 64:
        return "strong gates are marked for 64 keys at a time"
    takes = {"delta solve": (config.block_m,), "delta pairs": (config.block_n,)}
    blocks = takes.get(launch.kernel, (config.block_m, config.block_n))
    if max(launch.key_dim, launch.value_dim) > delta_configs.NARROW and min(blocks) < 64:
        return "blocks below 64 beside wider ones gave wrong gradients or crashed"
    return None
