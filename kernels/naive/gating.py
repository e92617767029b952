"""Specification of `gated_product` and `swiglu`: (x + rate * skip) * act(gate), as written."""

from __future__ import annotations

from torch import Tensor


def product_formula(
    x: Tensor, gate: Tensor, skip: Tensor | None, rate: Tensor | None, activation: str
) -> Tensor:
    if skip is not None and rate is not None:
        x = x + rate * skip
    return x * gate.sigmoid() * (gate if activation == "silu" else 1.0)
