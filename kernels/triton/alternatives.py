"""What `linearch bench tune` tries for each kernel: a dozen configurations or fewer beside today's.

Left out are those that were slower or wrong whenever they were tried: see docs/kernels.md.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch

from . import configs, delta_configs, dplr_configs
from .config_table import GATES, Config, Launch

# In the order of the search: what takes most of an operation's time first.
KERNELS = {
    "decay": ("decay pull", "decay sweep", "decay sweep reversed"),
    "delta": ("delta pull", "delta backward", "delta forward", "delta solve", "delta pairs"),
    "dplr": (
        "dplr writers",
        "dplr readers",
        "dplr backward",
        "dplr forward",
        "dplr solve",
        "dplr pairs",
    ),
}
# chunk_dplr's kernels know a channel's gate alone.
PROBLEMS = tuple(
    (operation, gate)
    for operation, gate in product(KERNELS, GATES)
    if operation != "dplr" or gate == "channel"
)
# These are judged by the forward pass.
FORWARD = ("decay sweep", "delta forward", "delta solve", "dplr forward", "dplr solve")
_HOLD_STATE = ("delta forward", "delta backward", "dplr forward", "dplr backward")
_MARKED = ("delta solve", "delta pull", "dplr solve", "dplr readers", "dplr writers")
_STAGES = (1, 2, 3)
_REGISTERS = {4: (None, 168), 8: (None,)}  # by warps; 168 a thread leave room for a third program


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
        case "dplr solve":
            return dplr_configs.solve(*size)
        case "dplr forward":
            return dplr_configs.forward(*size)
        case "dplr backward":
            return dplr_configs.backward(*size)
        case "dplr pairs":
            return dplr_configs.pairs(*size)
        case "dplr readers":
            return dplr_configs.readers(*size)
        case "dplr writers":
            return dplr_configs.writers(*size)
    raise ValueError(f"no kernel is called {launch.kernel!r}")


def alternatives(launch: Launch, today: Config) -> list[Config]:
    """Other compilations of today's tile, and of a wider one where values are wide."""
    tried = _compilations(today)
    if launch.value_dim >= 128 and not launch.kernel.endswith("solve"):
        wider = replace(today, block_n=128, num_warps=8, max_registers=None)
        tried += [replace(wider, num_stages=stages) for stages in _STAGES]
    return [
        config
        for config in dict.fromkeys(tried)
        if config != today
        and forbidden(launch, config) is None
        and not _is_known_slow(launch, config)
    ]


def _compilations(tile: Config) -> list[Config]:
    return [
        replace(tile, num_warps=warps, num_stages=stages, max_registers=registers)
        for warps, of_warps in _REGISTERS.items()
        for stages, registers in product(_STAGES, of_warps)
    ]


def _is_known_slow(launch: Launch, config: Config) -> bool:
    """Eight warps on a tile of 64 rows with three stages never fit beside a second program. A state
    or a channel's gates fill the registers: fewer spilled 660 to 1,700 bytes (compiler's report).
    """
    is_full = launch.kernel in _HOLD_STATE or GATES[launch.gate] == "channel"
    if config.num_warps == 8 and config.num_stages == 3:
        return True
    return is_full and config.max_registers is not None


def forbidden(launch: Launch, config: Config) -> str | None:
    """Why a configuration may not be in the table, whatever it measures; None if it may."""
    numbers = (config.block_m, config.block_n, config.num_warps)
    if any(n < 1 or n & (n - 1) for n in numbers) or not 1 <= config.num_stages <= 4:
        return "blocks and warps are powers of two, stages 1 to 4"
    if config.max_registers is not None and not 32 <= config.max_registers <= 255:
        return "a thread has 32 to 255 registers"
    if launch.kernel in _HOLD_STATE and config.block_m < launch.key_dim:
        return "a program holds all rows of the state"
    if launch.kernel in _MARKED and config.block_m > 64:
        return "strong gates are marked for 64 keys at a time"
    takes = {"solve": (config.block_m,), "pairs": (config.block_n,)}
    blocks = takes.get(launch.kernel.split()[1], (config.block_m, config.block_n))
    if max(launch.key_dim, launch.value_dim) > delta_configs.NARROW and min(blocks) < 64:
        return "blocks below 64 beside wider ones gave wrong gradients or crashed"
    return None
