"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: chunk_oja's errors by case, as JSON."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from interpreted_delta import log_decay_of, relative_error
from torch import Tensor
from torch.utils import deterministic

from linearch.kernels import chunk_oja

# name: (tokens, K, V, kind of gate or None, its values, other options)
CASES: dict[str, tuple[int, int, int, str | None, str, dict[str, Any]]] = {
    "one token": (1, 16, 16, "scalar", "mild", {}),
    "no gate, uneven sizes": (70, 20, 24, None, "0", {}),
    "scalar, mixed": (65, 16, 24, "scalar", "mixed", {}),
    "scalar, -20": (65, 16, 16, "scalar", "-20", {}),
    "channel, mild": (65, 16, 24, "channel", "mild", {}),
    "channel, mixed": (65, 16, 16, "channel", "mixed", {}),
    "channel, -20": (65, 16, 16, "channel", "-20", {}),
    "the output alone": (65, 16, 16, "scalar", "mild", {"final": False}),
    "no initial state": (65, 16, 16, "scalar", "mild", {"start": False}),
}


def main() -> None:
    torch.set_num_threads(1)
    # Memory not yet written is NaN, so that a place a kernel leaves out is seen.
    deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    print(json.dumps({name: errors(*case) for name, case in CASES.items()}))


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
        x["log_decay"] = log_decay_of(gate, {"scalar": rows, "channel": (*rows, value_dim)}[kind])
    final = options.get("final", True)
    wanted = results({n: t.double() for n, t in x.items()}, "naive", final)
    got = results(x, "triton", final)
    return {name: relative_error(got[name], wanted[name]) for name in wanted}


def results(x: dict[str, Tensor], form: Any, final: bool) -> dict[str, Tensor]:
    inputs = {name: t.clone().requires_grad_() for name, t in x.items()}
    o, state = chunk_oja(**inputs, form=form)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator).to(t) for t in (o, state)]
    loss = (o * weights[0]).sum() + ((state * weights[1]).sum() if final else 0)
    loss.backward()
    return {"o": o, "state": state} | {f"d{n}": t.grad for n, t in inputs.items()}


if __name__ == "__main__":
    main()
