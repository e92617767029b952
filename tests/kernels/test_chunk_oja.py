"""chunk_oja: the loop against explicit transition matrices, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_oja

FLOAT64 = torch.float64
KINDS = {"constant": "H", "scalar": "B T H", "channel": "B T H V"}


def random_inputs(length: int) -> dict[str, Tensor]:
    """Unit values and strengths up to 2, K = 5 and V = 7."""
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, 5, dtype=FLOAT64),
        "k": torch.randn(*rows, 5, dtype=FLOAT64),
        "v": F.normalize(torch.randn(*rows, 7, dtype=FLOAT64), dim=-1),
        "beta": 2 * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, 5, 7, dtype=FLOAT64),
    }


def gate_shape(kind: str, inputs: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHV", inputs["v"].shape, strict=True))
    return tuple(sizes[axis] for axis in KINDS[kind].split())


def test_the_loop_multiplies_the_state_from_the_right() -> None:
    x = random_inputs(5)
    g = -torch.rand(2, 5, 2, 7, dtype=FLOAT64)
    o, final = chunk_oja(**x, log_decay=g, scale=1.0, form="naive")
    state = x["initial_state"]
    for t in range(5):
        strong_v = x["beta"][:, t, :, None] * x["v"][:, t]
        erase = torch.eye(7, dtype=FLOAT64) - strong_v[..., None] * x["v"][:, t, :, None]
        state = state @ torch.diag_embed(g[:, t].exp()) @ erase
        state = state + x["k"][:, t, :, :, None] * strong_v[:, :, None]
        torch.testing.assert_close(o[:, t], (x["q"][:, t, :, None] @ state).squeeze(2))
    torch.testing.assert_close(final, state)


@pytest.mark.parametrize("length", [1, 2, 63, 65, 130])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_the_chunked_form_equals_the_loop(
    length: int,
    kind: str | None,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(length)
    if kind is not None:
        x["log_decay"] = log_decay_of("mixed", *gate_shape(kind, x))
    errors = errors_against_naive(chunk_oja, x, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("gate", ["0", "-20", "mild"])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_gates_are_exact_with_their_gradients(
    gate: str,
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(70)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_oja, x)
    assert max(errors.values()) < 1e-4, errors


def test_streaming_in_pieces_equals_the_whole(
    log_decay_of: Callable[..., Tensor], relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(70).items()}
    state: Tensor = x.pop("initial_state")
    x["log_decay"] = log_decay_of("mild", 2, 70, 2).float()
    whole, final = chunk_oja(**x, initial_state=state)
    pieces = []
    for start, end in [(0, 1), (1, 34), (34, 36), (36, 70)]:
        piece = {name: tensor[:, start:end] for name, tensor in x.items()}
        o, state = chunk_oja(**piece, initial_state=state)
        pieces.append(o)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-5
    assert relative_error(state, final) < 1e-5
