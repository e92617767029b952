"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: chunk_delta's errors by case, as JSON."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from comparing import log_decay_of
from interpreted import errors_of_triton, print_errors

from linearch.kernels import chunk_delta

# name: (tokens, K, V, kind of gate or None, its values, other options)
CASES: dict[str, tuple[int, int, int, str | None, str, dict[str, Any]]] = {
    "one token": (1, 16, 16, "channel", "mild", {}),
    "no gate, uneven sizes": (70, 20, 72, None, "0", {}),
    "no gate, an erase key": (65, 16, 16, None, "0", {"erase_key": True}),
    "constant": (33, 16, 16, "constant", "mild", {}),
    "scalar, mixed": (70, 16, 24, "scalar", "mixed", {}),
    "scalar, -20": (65, 16, 16, "scalar", "-20", {}),
    "scalar, an erase key": (65, 24, 16, "scalar", "mild", {"erase_key": True}),
    "channel, 0": (64, 16, 16, "channel", "0", {}),
    "channel, mild": (70, 24, 16, "channel", "mild", {"erase_key": True}),
    "channel, mixed": (65, 16, 16, "channel", "mixed", {"erase_key": True}),
    "channel, -20": (65, 16, 16, "channel", "-20", {}),
    "channel, tiles of K and V": (34, 80, 72, "channel", "mild", {}),
    "scalar, tiles of K and V": (34, 80, 72, "scalar", "mild", {}),
    "the output alone": (65, 16, 16, "scalar", "mild", {"unused": ["output1"]}),
    "no initial state": (65, 16, 16, "channel", "mild", {"start": False}),
    "long keys, weak": (33, 16, 16, "scalar", "mild", {"length": 100.0}),
    "two steps, no gate": (17, 20, 24, None, "0", {"steps": 2}),
    "three steps, scalar": (22, 16, 16, "scalar", "-20", {"steps": 3}),
    "three steps, channel": (22, 16, 24, "channel", "-20", {"steps": 3}),
    "two steps, an erase key": (33, 16, 16, "channel", "mixed", {"steps": 2, "erase_key": True}),
    "strengths of channels, no gate": (65, 16, 24, None, "0", {"channels": True}),
    "strengths of channels, an erase key": (
        65,
        20,
        16,
        "channel",
        "mixed",
        {"channels": True, "erase_key": True},
    ),
    "grouped values, two steps": (33, 16, 24, "scalar", "mild", {"steps": 2, "groups": 2}),
    "grouped values and strengths of channels": (
        34,
        16,
        24,
        "channel",
        "mild",
        {"groups": 2, "channels": True},
    ),
    "values, no gate": (70, 20, 24, None, "0", {"values": "mild"}),
    "values, mixed": (65, 16, 16, None, "0", {"values": "mixed"}),
    "values, -20, an erase key": (65, 16, 24, None, "0", {"values": "-20", "erase_key": True}),
    "values and a scalar": (65, 16, 16, "scalar", "mixed", {"values": "mixed"}),
    "values and channels, tiles of K and V": (34, 80, 72, "channel", "mild", {"values": "mild"}),
    "values and strong channels": (70, 16, 16, "channel", "-20", {"values": "mixed"}),
    "values that learn nothing, a scalar that does": (
        34,
        16,
        16,
        "scalar",
        "mild",
        {"values": "mild", "fixed": ["value_log_decay"]},
    ),
    "values that learn, channels that do not": (
        34,
        16,
        16,
        "channel",
        "mild",
        {"values": "mild", "fixed": ["log_decay"]},
    ),
    "values, two steps": (33, 16, 24, None, "0", {"values": "-20", "steps": 2}),
    "values and channels, three steps, an erase key": (
        22,
        16,
        24,
        "channel",
        "mixed",
        {"values": "mixed", "steps": 3, "erase_key": True},
    ),
    "values, grouped, strengths of channels": (
        34,
        16,
        24,
        "scalar",
        "mild",
        {"values": "mild", "groups": 2, "channels": True},
    ),
    "bfloat16, narrow, values": (
        70,
        16,
        16,
        None,
        "0",
        {"dtype": torch.bfloat16, "values": "mild"},
    ),
    "bfloat16, narrow": (70, 16, 16, "channel", "mild", {"dtype": torch.bfloat16}),
    "bfloat16, narrow, no gate": (
        70,
        20,
        24,
        None,
        "0",
        {"dtype": torch.bfloat16, "erase_key": True},
    ),
    "bfloat16, narrow, strengths of channels": (
        70,
        16,
        24,
        "channel",
        "mild",
        {"dtype": torch.bfloat16, "channels": True, "groups": 2},
    ),
    "bfloat16, narrow, two steps": (
        35,
        16,
        16,
        "channel",
        "mild",
        {"dtype": torch.bfloat16, "steps": 2},
    ),
}


def errors(
    length: int, key_dim: int, value_dim: int, kind: str | None, gate: str, options: dict[str, Any]
) -> dict[str, float]:
    torch.manual_seed(0)
    tokens = (1, length, 2)
    rows = (1, options.get("steps", 1) * length, 2)
    value_heads = 2 * options.get("groups", 1)
    x = {
        "q": torch.randn(*tokens, key_dim),
        "k": F.normalize(torch.randn(*rows, key_dim), dim=-1),
        "v": torch.randn(*rows[:2], value_heads, value_dim),
        "beta": 2 * torch.rand(rows),
    }
    if options.get("channels"):
        x["beta"], x["write_strength"] = 2 * torch.rand_like(x["k"]), torch.rand_like(x["v"])
    if options.get("start", True):
        x["initial_state"] = torch.randn(1, value_heads, key_dim, value_dim)
    if options.get("erase_key"):
        x["erase_key"] = F.normalize(x["k"] + 0.1 * torch.randn(*rows, key_dim), dim=-1)
    if kind is not None:
        shapes = {"constant": (2,), "scalar": tokens, "channel": (*tokens, key_dim)}
        x["log_decay"] = log_decay_of(gate, *shapes[kind]).float()
    if options.get("values"):
        decays = log_decay_of(options["values"], *tokens[:2], value_heads, value_dim)
        x["value_log_decay"] = decays.float()
    length_of_k = options.get("length", 1.0)
    x["k"], x["beta"] = length_of_k * x["k"], x["beta"] / length_of_k**2
    dtype = options.get("dtype", torch.float32)
    x |= {name: x[name].to(dtype) for name in ("q", "k", "v", "erase_key") if name in x}
    return errors_of_triton(
        chunk_delta, x, unused=options.get("unused", ()), fixed=options.get("fixed", ())
    )


if __name__ == "__main__":
    print_errors(errors, CASES)
