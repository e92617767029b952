"""chunk_dplr: the loop against explicit transition matrices, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_delta, chunk_dplr

FLOAT64 = torch.float64
KINDS = {"constant": "H", "scalar": "B T H", "channel": "B T H K"}


def random_inputs(length: int) -> dict[str, Tensor]:
    """As RWKV-7 has them, but for a part of b that lies across a; K = 5 and V = 7."""
    rows = (2, length, 2)
    a = F.normalize(torch.randn(*rows, 5, dtype=FLOAT64), dim=-1)
    across = 0.1 * torch.randn(*rows, 5, dtype=FLOAT64)
    return {
        "q": torch.randn(*rows, 5, dtype=FLOAT64),
        "k": torch.randn(*rows, 5, dtype=FLOAT64),
        "v": torch.randn(*rows, 7, dtype=FLOAT64),
        "a": a,
        "b": across - a * torch.rand(*rows, 5, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, 5, 7, dtype=FLOAT64),
    }


def gate_shape(kind: str, inputs: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", inputs["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in KINDS[kind].split())


def test_the_loop_is_a_product_of_transition_matrices() -> None:
    x = random_inputs(5)
    g = -torch.rand(2, 5, 2, 5, dtype=FLOAT64)
    o, final = chunk_dplr(**x, log_decay=g, scale=1.0, form="naive")
    state = x["initial_state"]
    for t in range(5):
        b_a = x["b"][:, t, :, :, None] @ x["a"][:, t, :, None]  # [B, H, K, K]
        transition = torch.diag_embed(g[:, t].exp()) + b_a
        state = transition @ state + x["k"][:, t, :, :, None] @ x["v"][:, t, :, None]
        torch.testing.assert_close(o[:, t], (x["q"][:, t, :, None] @ state).squeeze(2))
    torch.testing.assert_close(final, state)


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_the_delta_rule_is_a_special_case(form: str) -> None:
    """diag(w) + b a^T is (I - beta k k^T) diag(w) for a = w k and b = -beta k."""
    x = random_inputs(70)
    x["k"] = F.normalize(x["k"], dim=-1)
    del x["a"], x["b"]
    g, beta = -torch.rand(2, 70, 2, 5, dtype=FLOAT64), torch.rand(2, 70, 2, dtype=FLOAT64)
    wanted = chunk_delta(**x, beta=beta, log_decay=g, form="naive")
    a, written = g.exp() * x["k"], beta[..., None] * x["k"]
    got = chunk_dplr(**(x | {"k": written}), a=a, b=-written, log_decay=g, form=form)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("length", [1, 2, 63, 65, 200])
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
    errors = errors_against_naive(chunk_dplr, x, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("gate", ["0", "-20", "-inf", "mild"])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_gates_are_exact(
    gate: str,
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(70)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_dplr, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_stay_within_a_hundredth(
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(130)
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    errors = errors_against_naive(chunk_dplr, x, dtype=torch.bfloat16, gradients=False)
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_streaming_in_pieces_equals_the_whole(
    kind: str | None,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(77).items()}
    state: Tensor = x.pop("initial_state")
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x)).float()
    whole, final = chunk_dplr(**x, initial_state=state)
    pieces = []
    for start, end in [(0, 1), (1, 34), (34, 36), (36, 77)]:
        piece = {name: t if t.dim() == 1 else t[:, start:end] for name, t in x.items()}
        o, state = chunk_dplr(**piece, initial_state=state)
        pieces.append(o)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-5
    assert relative_error(state, final) < 1e-5


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_output_and_final_state_add_up(
    kind: str | None, log_decay_of: Callable[..., Tensor]
) -> None:
    """Also that a second backward pass through one call starts afresh."""
    x = random_inputs(40)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    leaves = [t.requires_grad_() for t in x.values()]
    o, state = chunk_dplr(**x)
    from_o = torch.autograd.grad(o.sum(), leaves, retain_graph=True)
    from_state = torch.autograd.grad(
        state.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    both = torch.autograd.grad(o.sum() + state.sum(), leaves)
    for a, b, wanted in zip(from_o, from_state, both, strict=True):
        torch.testing.assert_close(a + b, wanted)
