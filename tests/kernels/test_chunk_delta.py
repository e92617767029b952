"""chunk_delta: the loop against explicit transition matrices, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_delta

FLOAT64 = torch.float64
KINDS = {"constant": "H", "scalar": "B T H", "channel": "B T H K"}


def random_inputs(length: int, *, steps=1, erase_key=False) -> dict[str, Tensor]:
    """Unit keys and strengths up to 2, K = 5 and V = 7."""
    rows = (2, steps * length, 2)
    inputs = {
        "q": torch.randn(2, length, 2, 5, dtype=FLOAT64),
        "k": F.normalize(torch.randn(*rows, 5, dtype=FLOAT64), dim=-1),
        "v": torch.randn(*rows, 7, dtype=FLOAT64),
        "beta": 2 * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, 5, 7, dtype=FLOAT64),
    }
    if erase_key:
        near = inputs["k"] + 0.2 * torch.randn(*rows, 5, dtype=FLOAT64)
        inputs["erase_key"] = F.normalize(near, dim=-1)
    return inputs


def gate_shape(kind: str, inputs: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", inputs["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in KINDS[kind].split())


@pytest.mark.parametrize("steps", [1, 2])
def test_the_loop_is_a_product_of_transition_matrices(steps: int) -> None:
    x = random_inputs(5, steps=steps, erase_key=True)
    g = -torch.rand(2, 5, 2, 5, dtype=FLOAT64)
    o, final = chunk_delta(**x, log_decay=g, scale=1.0, form="naive")
    # S_i = A_i S_{i-1} + b k v^T with A_i = (I - b k p^T) diag(exp(g)), g = 0 but on a first step.
    state = x["initial_state"]
    for i in range(5 * steps):
        decay = g[:, i // steps].exp() if i % steps == 0 else torch.ones(2, 2, 5, dtype=FLOAT64)
        strong_k = (x["beta"][:, i, :, None] * x["k"][:, i])[..., None]  # [B, H, K, 1]
        erase = torch.eye(5, dtype=FLOAT64) - strong_k * x["erase_key"][:, i, :, None]
        state = erase @ torch.diag_embed(decay) @ state + strong_k * x["v"][:, i, :, None]
        if i % steps == steps - 1:
            t = i // steps
            torch.testing.assert_close(o[:, t], (x["q"][:, t, :, None] @ state).squeeze(2))
    torch.testing.assert_close(final, state)


def test_full_strength_replaces_what_a_unit_key_held() -> None:
    k = F.normalize(torch.randn(1, 1, 1, 4), dim=-1).expand(1, 3, 1, 4)
    v = torch.randn(1, 3, 1, 6)
    for form in ("naive", "chunked"):
        o, _ = chunk_delta(k, k, v, torch.ones(1, 3, 1), scale=1.0, form=form)
        torch.testing.assert_close(o, v)


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
    errors = errors_against_naive(chunk_delta, x, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("gate", ["0", "-20", "mild", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "erase_key"), [(1, True), (3, False), (2, True), (40, False)])
def test_steps_and_erase_keys_are_exact_at_extreme_gates(
    gate: str,
    kind: str,
    steps: int,
    erase_key: bool,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(37 if steps < 40 else 3, steps=steps, erase_key=erase_key)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_stay_within_a_hundredth(
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(130)
    x["beta"] = x["beta"] / 2
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x, dtype=torch.bfloat16, gradients=False)
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_streaming_in_pieces_equals_the_whole(
    steps: int,
    kind: str,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(77, steps=steps).items()}
    x["beta"] = x["beta"] / 2
    state: Tensor = x.pop("initial_state")
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x)).float()
    whole, final = chunk_delta(**x, initial_state=state)
    pieces = []
    for start, end in [(0, 1), (1, 34), (34, 36), (36, 77)]:
        piece = {
            name: t if t.dim() == 1 else t[:, start * rate : end * rate]
            for name, t in x.items()
            for rate in [t.shape[1] // 77 if t.dim() > 1 else 1]
        }
        o, state = chunk_delta(**piece, initial_state=state)
        pieces.append(o)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-5
    assert relative_error(state, final) < 1e-5


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_output_and_final_state_add_up(
    kind: str | None, log_decay_of: Callable[..., Tensor]
) -> None:
    """Also that a second backward pass through one call starts afresh."""
    x = random_inputs(40, erase_key=True)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    leaves = [t.requires_grad_() for t in x.values()]
    o, state = chunk_delta(**x)
    from_o = torch.autograd.grad(o.sum(), leaves, retain_graph=True)
    from_state = torch.autograd.grad(state.sum(), leaves, retain_graph=True)
    both = torch.autograd.grad(o.sum() + state.sum(), leaves)
    for a, b, wanted in zip(from_o, from_state, both, strict=True):
        torch.testing.assert_close(a + b, wanted)
