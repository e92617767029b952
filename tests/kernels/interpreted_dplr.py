"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: chunk_dplr's errors by case, as JSON."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from comparing import log_decay_of
from interpreted import errors_of_triton, print_errors

from linearch.kernels import chunk_dplr

# name: (tokens, K, V, kind of gate or None, its values, other options)
CASES: dict[str, tuple[int, int, int, str | None, str, dict[str, Any]]] = {
    "one token": (1, 16, 16, "channel", "mild", {}),
    "no gate, uneven sizes": (70, 20, 72, None, "0", {}),
    "constant": (33, 16, 16, "constant", "mild", {}),
    "scalar, mixed": (70, 16, 24, "scalar", "mixed", {}),
    "scalar, -20": (65, 16, 16, "scalar", "-20", {}),
    "channel, 0": (64, 16, 16, "channel", "0", {}),
    "channel, mild": (70, 24, 16, "channel", "mild", {}),
    "channel, mixed": (65, 16, 16, "channel", "mixed", {}),
    "channel, -20": (65, 16, 16, "channel", "-20", {}),
    "channel, forgets all": (40, 16, 16, "channel", "-inf", {}),
    "channel, tiles of K and V": (34, 80, 72, "channel", "mixed", {}),
    "the output alone": (65, 16, 16, "scalar", "mild", {"unused": ["output1"]}),
    "no initial state": (65, 16, 16, "channel", "mild", {"start": False}),
    "long keys": (33, 16, 16, "channel", "mild", {"length": 100.0}),
    "bfloat16, narrow": (70, 16, 16, "channel", "mild", {"dtype": torch.bfloat16}),
    "bfloat16, narrow, no gate": (70, 20, 24, None, "0", {"dtype": torch.bfloat16}),
}


def errors(
    length: int, key_dim: int, value_dim: int, kind: str | None, gate: str, options: dict[str, Any]
) -> dict[str, float]:
    torch.manual_seed(0)
    tokens = (1, length, 2)
    x = {name: torch.randn(*tokens, key_dim) for name in "qkab"}
    x["v"] = torch.randn(*tokens, value_dim)
    x["a"] = F.normalize(x["a"], dim=-1)
    x["b"] = 0.1 * F.normalize(x["b"], dim=-1) - x["a"] * torch.rand(*tokens, key_dim)
    if options.get("start", True):
        x["initial_state"] = torch.randn(1, 2, key_dim, value_dim)
    if kind is not None:
        shapes = {"constant": (2,), "scalar": tokens, "channel": (*tokens, key_dim)}
        x["log_decay"] = log_decay_of(gate, *shapes[kind]).float()
    length_of_a = options.get("length", 1.0)
    x["a"], x["b"] = length_of_a * x["a"], x["b"] / length_of_a
    dtype = options.get("dtype", torch.float32)
    x |= {name: x[name].to(dtype) for name in "qkvab"}
    return errors_of_triton(chunk_dplr, x, unused=options.get("unused", ()))


if __name__ == "__main__":
    print_errors(errors, CASES)
