"""Whether Triton's recurrences agree with the float64 loops, as `linearch bench tune` asks it.

The tolerances are those of the GPU tests. Gates are mild, and then also 0 and -20 in one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from . import chunk_decay, chunk_delta, chunk_dplr
from .forms import Form

OUTPUT_ERROR, GRADIENT_ERROR = 5e-3, 1e-2  # relative norms, of bfloat16
_LENGTH = 200  # tokens: three chunks and a part of one
Tensors = dict[str, Tensor]
_OPERATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "decay": chunk_decay,
    "delta": chunk_delta,
    "dplr": chunk_dplr,
}


def disagreement(operation: str, gate: str, dim: int, device: str) -> str | None:
    """The first result that is too far from the loop's, with its error; None if all agree."""
    for strength in ("mild",) if gate == "none" else ("mild", "mixed"):
        inputs, wanted = _wanted(operation, gate, dim, strength)
        got = _results(operation, {n: x.to(device) for n, x in inputs.items()}, "triton")
        for name, x in wanted.items():
            error = relative_error(got[name].cpu(), x)
            limit = GRADIENT_ERROR if name.startswith("d") else OUTPUT_ERROR
            if not error < limit:  # also not a number
                return f"{name} is off by {error:.1e} (gates: {strength})"
    return None


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """norm(got - wanted) / norm(wanted); against zeros, norm(got)."""
    dtype = torch.promote_types(wanted.dtype, torch.float32)
    norm = float(torch.linalg.vector_norm(wanted, dtype=dtype))
    apart = float(torch.linalg.vector_norm(got.to(dtype) - wanted, dtype=dtype))
    return apart / (norm if norm > 0 else 1.0)


@cache
def _wanted(operation: str, gate: str, dim: int, strength: str) -> tuple[Tensors, Tensors]:
    """Inputs on the CPU, and what the loop makes of them in float64."""
    inputs = _inputs(operation, gate, dim, strength)
    return inputs, _results(operation, {n: x.double() for n, x in inputs.items()}, "naive")


def _inputs(operation: str, gate: str, dim: int, strength: str) -> Tensors:
    random = torch.Generator().manual_seed(0)
    rows = (2, _LENGTH, 2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    q, k, v = (normal(*rows, dim) for _ in range(3))
    inputs = {"q": q, "k": F.normalize(k, dim=-1) if operation == "delta" else k, "v": v}
    if operation == "dplr":
        a = F.normalize(normal(*rows, dim), dim=-1)
        inputs |= {"a": a, "b": -a * torch.rand((*rows, dim), generator=random)}
    inputs = {name: x.bfloat16() for name, x in inputs.items()}
    inputs["initial_state"] = normal(2, 2, dim, dim)
    if operation == "delta":
        inputs["beta"] = torch.rand(rows, generator=random)
    if gate != "none":
        chance = torch.rand(rows if gate == "scalar" else (*rows, dim), generator=random)
        strong_or_none = torch.where(chance < 0.3, -20.0, 0.0)
        mixed = torch.where(chance < 0.6, strong_or_none, -chance)
        inputs["log_decay"] = mixed if strength == "mixed" else -0.3 * chance
    return inputs


def _results(operation: str, inputs: Tensors, form: Form) -> Tensors:
    """The output, the final state and, under "d" and an input's name, every gradient."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    outputs = _OPERATIONS[operation](**leaves, form=form)
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=random, dtype=torch.float64).to(x) for x in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), weights)
    of_leaves = {f"d{name}": x for name, x in zip(leaves, grads, strict=True)}
    return {"output": outputs[0].detach(), "state": outputs[1].detach()} | of_leaves
