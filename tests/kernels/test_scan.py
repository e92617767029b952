"""scan: the loop against a dense formula, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from linearch.kernels import scan

FLOAT64 = torch.float64


def test_the_loop_weighs_each_input_by_the_decays_since() -> None:
    x, g = torch.randn(2, 6, 3, dtype=FLOAT64), -torch.rand(2, 6, 3, dtype=FLOAT64)
    h, final = scan(x, g, form="naive")
    for t in range(6):
        wanted = sum(x[:, s] * g[:, s + 1 : t + 1].sum(1).exp() for s in range(t + 1))
        torch.testing.assert_close(h[:, t], wanted)
    torch.testing.assert_close(final, h[:, -1])


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 130])
@pytest.mark.parametrize("gate", ["0", "-20", "mixed", "mild", "-inf"])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_chunked_form_equals_the_loop(
    length: int,
    gate: str,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    inputs = {
        "x": torch.randn(2, length, 5, dtype=FLOAT64),
        "log_decay": log_decay_of(gate, 2, length, 5),
        "initial_state": torch.randn(2, 5, dtype=FLOAT64),
    }
    errors = errors_against_naive(scan, inputs, dtype=dtype)
    assert max(errors.values()) < bar, errors


def test_a_constant_decay_and_no_initial_state_work(
    errors_against_naive: Callable[..., dict[str, float]], log_decay_of: Callable[..., Tensor]
) -> None:
    inputs = {"x": torch.randn(2, 40, 5, dtype=FLOAT64), "log_decay": log_decay_of("mild", 5)}
    errors = errors_against_naive(scan, inputs)
    assert max(errors.values()) < 1e-4, errors


def test_streaming_in_pieces_equals_the_whole(
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x, g = torch.randn(2, 50, 3), -torch.rand(2, 50, 3)
    whole, final = scan(x, g)
    state, pieces = None, []
    for start, end in [(0, 1), (1, 20), (20, 50)]:
        h, state = scan(x[:, start:end], g[:, start:end], initial_state=state)
        pieces.append(h)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-6
    assert relative_error(state, final) < 1e-6


def test_bfloat16_inputs_keep_a_float32_state() -> None:
    x, g = torch.randn(2, 40, 3, dtype=torch.bfloat16), -torch.rand(2, 40, 3)
    h, final = scan(x, g)
    wanted, _ = scan(x.double(), g.double(), form="naive")
    assert (h.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(h.double(), wanted, rtol=1e-2, atol=1e-2)
