"""Under autocast and with bfloat16 inputs states stay float32 and outputs take v's dtype."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import (
    chunk_decay,
    chunk_delta,
    chunk_dplr,
    chunk_oja,
    linear_cross_entropy,
)

Operation = Callable[..., tuple[Tensor, Tensor]]
# Each takes q, k, v [B, T, H, K], strengths [B, T, H] and gates [B, T, H, K].
OPERATIONS: dict[str, Operation] = {
    "decay": lambda q, k, v, b, g: chunk_decay(q, k, v),
    "scalar decay": lambda q, k, v, b, g: chunk_decay(q, k, v, g[..., 0]),
    "channel decay": lambda q, k, v, b, g: chunk_decay(q, k, v, g),
    "value decay": lambda q, k, v, b, g: chunk_decay(q=q, k=k, v=v, value_log_decay=g),
    "delta": lambda q, k, v, b, g: chunk_delta(q, F.normalize(k, dim=-1), v, b, g),
    "delta of channels": lambda q, k, v, b, g: chunk_delta(
        q, F.normalize(k, dim=-1), v, g.exp(), g, write_strength=g.exp(), value_log_decay=g
    ),
    "two streams": lambda q, k, v, b, g: chunk_dplr(q, k, v, F.normalize(q, dim=-1), -0.1 * q, g),
    "oja": lambda q, k, v, b, g: chunk_oja(q, k, F.normalize(v, dim=-1), b, g),
}


def random_inputs(length: int) -> list[Tensor]:
    qkv = [torch.randn(2, length, 2, 6) for _ in range(3)]
    return [*qkv, torch.rand(2, length, 2), -torch.rand(2, length, 2, 6)]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("length", [1, 40])
def test_autocast_does_not_lower_a_recurrence(operation: Operation, length: int) -> None:
    inputs = random_inputs(length)
    leaves = [x.requires_grad_() for x in inputs[:3]]

    def run() -> tuple[Tensor, ...]:
        o, state = operation(*inputs)
        return o, state, *torch.autograd.grad(o.sum() + state.sum(), leaves)

    wanted = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run()
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize(
    ("given", "of_output", "of_state"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_outputs_have_v_s_dtype_and_states_are_wide(
    operation: Operation, given: torch.dtype, of_output: torch.dtype, of_state: torch.dtype
) -> None:
    o, state = operation(*(x.to(given) for x in random_inputs(40)))
    assert (o.dtype, state.dtype) == (of_output, of_state)


def test_autocast_lowers_the_logits_but_not_the_loss() -> None:
    hidden, head = torch.randn(32, 16), torch.randn(50, 16)
    targets = torch.randint(0, 50, (32,))
    wanted = linear_cross_entropy(hidden, head, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = linear_cross_entropy(hidden, head, targets)
    assert got.dtype == torch.float32
    assert got != wanted
    torch.testing.assert_close(got, wanted, rtol=1e-2, atol=1e-2)
