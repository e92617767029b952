"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: chunk_decay's errors by case, as JSON."""

from __future__ import annotations

import json
from typing import Any

import torch
from comparing import log_decay_of
from interpreted import errors_of_triton, set_up

from linearch.kernels import chunk_decay
from linearch.kernels.triton import configs

# name: (tokens, K, V, kind of gate or None, its values, other options)
CASES: dict[str, tuple[int, int, int, str | None, str, dict[str, Any]]] = {
    "two tokens": (2, 16, 16, None, "0", {}),
    "no gate, uneven sizes": (70, 20, 72, None, "0", {}),
    "uneven, narrow": (130, 20, 36, None, "0", {}),
    "scalar, no gate gradient": (65, 36, 20, "scalar", "mild", {"learns_gate": False}),
    "constant": (65, 16, 16, "constant", "mild", {}),
    "scalar, mixed": (70, 16, 24, "scalar", "mixed", {}),
    "scalar, -20": (65, 16, 16, "scalar", "-20", {}),
    "scalar, in two segments": (570, 16, 16, "scalar", "mild", {}),
    "channel, in two segments": (520, 16, 16, "channel", "mixed", {}),
    "channel, mild": (70, 24, 16, "channel", "mild", {}),
    "channel, mixed": (65, 16, 16, "channel", "mixed", {}),
    "channel, tiles of K and V": (66, 80, 72, "channel", "mild", {}),
    "value, mild": (70, 24, 40, "value", "mild", {}),
    "value, mixed": (65, 16, 16, "value", "mixed", {}),
    "value, -20": (65, 16, 16, "value", "-20", {"unused": ["output1"]}),
    "value, normalised": (65, 16, 16, "value", "mild", {"normalise": True}),
    "value and scalar, mixed": (65, 16, 24, "scalar", "mixed", {"values": "mixed"}),
    "value and channel, a bonus": (
        34,
        16,
        16,
        "channel",
        "mild",
        {"values": "mild", "bonus": True},
    ),
    "value, a bonus": (34, 16, 16, "value", "mild", {"bonus": True}),
    "value and channel, normalised": (
        34,
        16,
        16,
        "channel",
        "mild",
        {"values": "mild", "normalise": True},
    ),
    "bonus": (65, 16, 16, "channel", "mild", {"bonus": True}),
    "normalised": (65, 16, 16, "scalar", "mild", {"normalise": True}),
    "grouped values": (65, 16, 16, "scalar", "mild", {"groups": 2}),
    "the output alone": (65, 16, 16, "scalar", "mild", {"unused": ["output1"]}),
}
# Those whose gradients are made in one pass in bfloat16, which the interpreter does not have.
NARROW = [
    "two tokens",
    "uneven, narrow",
    "constant",
    "scalar, mixed",
    "scalar, -20",
    "scalar, in two segments",
    "scalar, no gate gradient",
    "normalised",
    "grouped values",
    "the output alone",
]


def main() -> None:
    set_up()
    found = {name: errors(*case) for name, case in CASES.items()}
    configs.WHOLE_STATE_DTYPES.append(torch.float32)
    whole = {f"one pass: {name}": errors(*CASES[name]) for name in NARROW}
    print(json.dumps(found | whole))


def errors(
    length: int, key_dim: int, value_dim: int, kind: str | None, gate: str, options: dict[str, Any]
) -> dict[str, float]:
    torch.manual_seed(0)
    groups, normalise = options.get("groups", 1), options.get("normalise", False)
    x = {
        "q": torch.randn(1, length, 1, key_dim).abs() + 0.1,
        "k": torch.randn(1, length, 1, key_dim).abs() + 0.1,
        "v": torch.randn(1, length, groups, value_dim),
        "initial_state": torch.rand(1, groups, key_dim, value_dim + normalise) + 0.1,
    }
    fixed: list[str] = []
    if kind is not None:
        shapes = {
            "constant": (1,),
            "scalar": (1, length, 1),
            "channel": (1, length, 1, key_dim),
            "value": (1, length, groups, value_dim),
        }
        name = "value_log_decay" if kind == "value" else "log_decay"
        x[name] = log_decay_of(gate, *shapes[kind]).float()
        fixed = [] if options.get("learns_gate", True) else [name]
    if options.get("values"):
        shape = (1, length, groups, value_dim)
        x["value_log_decay"] = log_decay_of(options["values"], *shape).float()
    if options.get("bonus"):
        x["bonus"] = torch.randn(1, key_dim)
    return errors_of_triton(
        chunk_decay, x, fixed=fixed, unused=options.get("unused", ()), normalise=normalise
    )


if __name__ == "__main__":
    main()
