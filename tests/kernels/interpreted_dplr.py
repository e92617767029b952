"""Run with TRITON_INTERPRET=1 by test_triton_dplr: chunk_dplr's errors by case, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.nn.functional as F
from interpreted_delta import log_decay_of, relative_error
from torch import Tensor
from torch.utils import deterministic

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
    "the output alone": (65, 16, 16, "scalar", "mild", {"final": False}),
    "no initial state": (65, 16, 16, "channel", "mild", {"start": False}),
    "long keys": (33, 16, 16, "channel", "mild", {"length": 100.0}),
    "bfloat16, narrow": (70, 16, 16, "channel", "mild", {"dtype": torch.bfloat16}),
    "bfloat16, narrow, no gate": (70, 20, 24, None, "0", {"dtype": torch.bfloat16}),
}


def main() -> None:
    torch.set_num_threads(1)
    # Memory not yet written is NaN, so that a place a kernel leaves out is seen.
    deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    wanted = sys.argv[1:] or list(CASES)
    print(json.dumps({name: errors(*CASES[name]) for name in wanted}))


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
        x["log_decay"] = log_decay_of(gate, shapes[kind])
    length_of_a = options.get("length", 1.0)
    x["a"], x["b"] = length_of_a * x["a"], x["b"] / length_of_a
    final, dtype = options.get("final", True), options.get("dtype", torch.float32)
    x |= {name: x[name].to(dtype) for name in "qkvab"}
    wanted = results({n: t.double() for n, t in x.items()}, "naive", final)
    got = results(x, "triton", final)
    return {name: relative_error(got[name], wanted[name]) for name in wanted}


def results(x: dict[str, Tensor], form: Any, final: bool) -> dict[str, Tensor]:
    inputs = {name: t.clone().requires_grad_() for name, t in x.items()}
    o, state = chunk_dplr(**inputs, form=form)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator).to(t) for t in (o, state)]
    loss = (o * weights[0]).sum() + ((state * weights[1]).sum() if final else 0)
    loss.backward()
    return {"o": o, "state": state} | {f"d{n}": t.grad for n, t in inputs.items()}


if __name__ == "__main__":
    main()
