"""flash-linear-attention's forms of our operations, to be timed beside them.

Its gated backward passes refuse to run on Hopper with Triton 3.4 to 3.7.0, where their gradients
may be wrong; the guard is lifted here for timing alone, and the rows say so.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from .bench_cases import Case

GUARDED = ("decay scalar", "delta scalar", "packed decay scalar", "packed delta scalar")


def peer_is_installed() -> bool:
    return importlib.util.find_spec("fla") is not None


def peer_call(case: Case) -> Callable[[], Any] | None:
    """The same operation on the case's own tensors; None where the peer has none.

    The peer's constant decay takes no gradient.
    """
    make = _CALLS.get(case.operation)
    return None if make is None else partial(make, case)


def lift_guard(operation: str) -> bool:
    """Whether the peer would refuse this operation's backward pass here; it no longer does."""
    if operation not in GUARDED:
        return False
    chunk_o = importlib.import_module("fla.ops.common.chunk_o")
    mended = importlib.import_module("fla.utils").TRITON_ABOVE_3_7_1
    if mended or not (chunk_o.IS_NVIDIA_HOPPER and chunk_o.TRITON_ABOVE_3_4_0):
        return False
    chunk_o.TRITON_ABOVE_3_7_1 = True  # type: ignore[attr-defined]
    return True


def _function(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _linear(case: Case) -> Any:
    return _function("fla.ops.linear_attn", "chunk_linear_attn")(*case.leaves, normalize=False)


def _constant(case: Case) -> Any:
    q, k, v, g = case.leaves
    return _function("fla.ops.simple_gla", "chunk_simple_gla")(q, k, v, g_gamma=g.detach())


def _gated(module: str, case: Case) -> Any:
    q, k, v, g = case.leaves
    call = _function(f"fla.ops.{module}", f"chunk_{module}")
    return call(q, k, v, g, cu_seqlens=_bounds(case))


def _delta(case: Case) -> Any:
    q, k, v, beta = case.leaves
    return _function("fla.ops.delta_rule", "chunk_delta_rule")(q, k, v, beta.to(v.dtype))


def _gated_delta(module: str, case: Case) -> Any:
    q, k, v, beta, g = case.leaves
    call = _function(f"fla.ops.{module}", f"chunk_{module}")
    return call(q, k, v, g, beta.to(v.dtype), cu_seqlens=_bounds(case))


def _bounds(case: Case) -> Tensor | None:
    """On the device, the same tensor each time, as the peer keeps what it made of it."""
    return case.others[1] if case.is_packed else None


def _dplr(case: Case) -> Any:
    *streams, g = case.leaves
    return _function("fla.ops.generalized_delta_rule", "chunk_dplr_delta_rule")(*streams, gk=g)


def _scan(case: Case) -> Any:
    return _function("fla.ops.hgrn", "chunk_hgrn")(*case.leaves)


def _gated_norm(case: Case) -> Tensor:
    x, weight, gate = case.leaves
    y: Tensor = _function("fla.modules.norm.fused_norm_gate", "rms_norm_gated")(
        x, gate, weight, None
    )
    return y


def _loss(case: Case) -> Any:
    hidden, head = case.leaves
    module = "fla.modules.fused_linear_cross_entropy"
    return _function(module, "fused_linear_cross_entropy_loss")(hidden, case.others[0], head)


_CALLS: dict[str, Callable[[Case], Any]] = {
    "decay none": _linear,
    "decay constant": _constant,
    "decay scalar": partial(_gated, "simple_gla"),
    "decay channel": partial(_gated, "gla"),
    "delta none": _delta,
    "delta scalar": partial(_gated_delta, "gated_delta_rule"),
    "delta channel": partial(_gated_delta, "kda"),
    "packed decay scalar": partial(_gated, "simple_gla"),
    "packed delta scalar": partial(_gated_delta, "gated_delta_rule"),
    "dplr channel": _dplr,
    "scan": _scan,
    "norm, gated": _gated_norm,
    "head and loss": _loss,
}
