"""Non-contiguous tensors, and the expanded gradient of a sum, give what contiguous ones give."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch import kernels

QKV = {"q": (2, 40, 2, 4), "k": (2, 40, 2, 4), "v": (2, 40, 2, 6)}
START = {"initial_state": (2, 2, 4, 6)}
PAIR = {"a": (2, 40, 2, 4), "b": (2, 40, 2, 4)}
BETA = {"beta": (2, 40, 2)}
SEQUENCE = {"x": (2, 40, 6)}

OPERATIONS: list[tuple[Callable[..., Any], dict[str, tuple[int, ...]]]] = [
    (kernels.chunk_decay, QKV | START),
    (kernels.chunk_decay, QKV | START | {"log_decay": (2, 40, 2)}),
    (kernels.chunk_decay, QKV | {"log_decay": (2, 40, 2, 4), "value_log_decay": (2, 40, 2, 6)}),
    (kernels.chunk_decay, QKV | START | {"bonus": (2, 4)}),
    (kernels.chunk_delta, QKV | BETA | START | {"log_decay": (2, 40, 2)}),
    (kernels.chunk_delta, QKV | BETA | {"erase_key": (2, 40, 2, 4), "log_decay": (2, 40, 2, 4)}),
    (
        kernels.chunk_delta,
        {"q": (2, 40, 1, 4), "k": (2, 40, 1, 4), "v": (2, 40, 2, 6), "beta": (2, 40, 1, 4)}
        | {"write_strength": (2, 40, 2, 6), "value_log_decay": (2, 40, 2, 6)},
    ),
    (kernels.chunk_dplr, QKV | PAIR | START | {"log_decay": (2, 40, 2, 4)}),
    (kernels.chunk_oja, QKV | BETA | START | {"log_decay": (2, 40, 2, 6)}),
    (kernels.scan, SEQUENCE | {"log_decay": (2, 40, 6), "initial_state": (2, 6)}),
    (kernels.causal_attention, QKV),
    (lambda **x: kernels.causal_attention(**x, window=5), QKV),
    (kernels.causal_attention, QKV | {"log_decay": (2, 40, 2), "sinks": (2,)}),
    (kernels.short_convolution, SEQUENCE | {"weight": (6, 4), "initial_state": (2, 3, 6)}),
    (kernels.rms_norm, SEQUENCE | {"weight": (6,), "gate": (2, 40, 6)}),
    (kernels.l2_norm, SEQUENCE),
    (kernels.add_rms_norm, SEQUENCE | {"residual": (2, 40, 6), "weight": (6,)}),
    (kernels.gated_product, SEQUENCE | {"gate": (2, 40, 6)}),
    (
        kernels.gated_product,
        SEQUENCE | {"gate": (2, 40, 6), "skip": (2, 40, 6), "skip_rate": (40, 1)},
    ),
    (kernels.add_bonus, {"o": (2, 40, 2, 6)} | QKV | {"bonus": (2, 4)}),
    (partial(kernels.rotary, position=torch.tensor(3)), {"x": (2, 40, 2, 6)}),
    (kernels.scaled_heads, {"x": (2, 40, 2, 6), "strength": (2, 40, 4)}),
    (kernels.swiglu, {"gate_up": (2, 40, 6)}),
    (
        lambda **x: kernels.token_shift(**x)[0][0],
        SEQUENCE | {"shares": (1, 6), "offsets": (1, 2, 40, 6), "initial_state": (2, 1, 6)},
    ),
    (partial(kernels.activation, function="softplus"), SEQUENCE | {"bias": (6,), "rate": (40, 1)}),
]


@pytest.mark.parametrize(("operation", "shapes"), OPERATIONS)
@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_strides_do_not_matter(
    operation: Callable[..., Any], shapes: dict[str, tuple[int, ...]], form: str
) -> None:
    # Small and negative values are fit for every role: keys, strengths below 2, log decays.
    values = {name: -0.5 * torch.rand(shape) for name, shape in shapes.items()}

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        leaves = {name: x.requires_grad_() for name, x in inputs.items()}
        returned = operation(**leaves, form=form)
        o = returned[0] if isinstance(returned, tuple) else returned
        return [o, *torch.autograd.grad(o.sum(), list(leaves.values()))]

    for strided, contiguous in zip(
        run({name: _strided(x) for name, x in values.items()}), run(values), strict=True
    ):
        torch.testing.assert_close(strided, contiguous)


def _strided(x: Tensor) -> Tensor:
    """x with its axes laid out in reverse and gaps between its elements."""
    reverse = tuple(reversed(range(x.dim())))
    spread = x.permute(reverse).unsqueeze(-1).repeat(*[1] * x.dim(), 2)
    y = spread[..., 0].permute(reverse)
    assert not y.is_contiguous()
    return y
