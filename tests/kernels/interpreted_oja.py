"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: chunk_oja's errors by case, as JSON."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from comparing import log_decay_of
from interpreted import errors_of_triton, print_errors

from linearch.kernels import chunk_oja

# name: (tokens, K, V, kind of gate or None, its values, other options)
CASES: dict[str, tuple[int, int, int, str | None, str, dict[str, Any]]] = {
    "one token": (1, 16, 16, "channel", "mild", {}),
    "no gate, uneven sizes": (63, 72, 20, None, "0", {}),
    "no gate, 200 tokens": (200, 16, 24, None, "0", {}),
    "no gate, wide values": (34, 20, 72, None, "0", {}),
    "constant": (33, 16, 16, "constant", "mild", {}),
    "scalar, 0": (64, 16, 16, "scalar", "0", {}),
    "scalar, mixed": (65, 24, 16, "scalar", "mixed", {}),
    "scalar, -20": (65, 16, 16, "scalar", "-20", {}),
    "channel, 0": (64, 16, 16, "channel", "0", {}),
    "channel, mild": (70, 16, 24, "channel", "mild", {}),
    "channel, mixed": (65, 16, 16, "channel", "mixed", {}),
    "channel, -20": (65, 16, 16, "channel", "-20", {}),
    "channel, tiles of K and V": (34, 72, 80, "channel", "mixed", {}),
    "scalar, tiles of K and V": (34, 72, 80, "scalar", "mild", {}),
    "the output alone": (65, 16, 16, "scalar", "mild", {"unused": ["output1"]}),
    "the state alone": (65, 16, 16, "channel", "mild", {"unused": ["output0"]}),
    "no initial state": (65, 16, 16, "channel", "mild", {"start": False}),
    "slices of one tensor": (65, 16, 16, "channel", "mild", {"slices": True}),
    "elements of a row apart": (65, 16, 24, "scalar", "mild", {"apart": True}),
    "long values, weak": (33, 16, 16, "scalar", "mild", {"length": 100.0}),
    "bfloat16, narrow": (70, 16, 16, "channel", "mild", {"dtype": torch.bfloat16}),
    "bfloat16, narrow values, no gate": (130, 40, 24, None, "0", {"dtype": torch.bfloat16}),
}


def errors(
    length: int, key_dim: int, value_dim: int, kind: str | None, gate: str, options: dict[str, Any]
) -> dict[str, float]:
    torch.manual_seed(0)
    rows = (1, length, 2)
    x = {
        "q": torch.randn(*rows, key_dim),
        "k": torch.randn(*rows, key_dim),
        "v": F.normalize(torch.randn(*rows, value_dim), dim=-1),
        "beta": 2 * torch.rand(rows),
    }
    if options.get("start", True):
        x["initial_state"] = torch.randn(1, 2, key_dim, value_dim)
    if kind is not None:
        shapes = {"constant": (2,), "scalar": rows, "channel": (*rows, value_dim)}
        x["log_decay"] = log_decay_of(gate, *shapes[kind]).float()
    length_of_v = options.get("length", 1.0)
    x["v"], x["beta"] = length_of_v * x["v"], x["beta"] / length_of_v**2
    dtype = options.get("dtype", torch.float32)
    x |= {name: x[name].to(dtype) for name in ("q", "k", "v")}
    if options.get("slices"):
        packed = torch.cat([x["q"], x["k"], x["v"]], dim=2)
        x |= zip("qkv", packed.chunk(3, dim=2), strict=True)
    if options.get("apart"):
        x |= {name: x[name].mT.contiguous().mT for name in ("q", "k", "v", "initial_state")}
    return errors_of_triton(chunk_oja, x, unused=options.get("unused", ()))


if __name__ == "__main__":
    print_errors(errors, CASES)
