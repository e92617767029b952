"""Run with TRITON_INTERPRET=1 by test_operators: operators beside torch's compiler, as JSON."""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from linearch.kernels.triton.gating import _product_op, _product_pull_op, product_fused


def outside_a_graph(x: Tensor, gate: Tensor) -> Tensor:
    """torch.compile gives up at a break within a loop, and looks into what is called instead."""
    for _ in range(1):
        exec("1")  # what it does not trace
        y: Tensor = _product_op.overload(x, gate, True)
    return y


def refusal(x: Tensor, gate: Tensor) -> str:
    dx, _ = _product_pull_op(x, x, gate, True)
    try:
        dx.sum().backward()
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    torch.manual_seed(0)
    x, gate = (torch.randn(5, 12, requires_grad=True) for _ in range(2))
    y = product_fused(x, gate, "silu")
    y.sum().backward()
    found = {"imported the compiler": "torch._dynamo" in sys.modules}
    outside = torch.compile(outside_a_graph, backend="eager")(x, gate)
    found["the same outside a graph"] = torch.equal(outside, y)
    print(json.dumps(found | {"refusal": refusal(x, gate)}))


if __name__ == "__main__":
    main()
