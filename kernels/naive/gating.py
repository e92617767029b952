"""Specification of `gated_product` and `swiglu`: x * act(gate), as written."""

from __future__ import annotations

from torch import Tensor


def product_formula(x: Tensor, gate: Tensor, activation: str) -> Tensor:
    return x * gate.sigmoid() * (gate if activation == "silu" else 1.0)
