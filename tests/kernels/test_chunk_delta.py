"""chunk_delta: the loop against explicit transition matrices, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_delta
from linearch.kernels.forms import Form

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


def with_strengths_of_channels(x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those to erase with up to 2, those to write with of any size."""
    strengths = {
        "beta": 2 * torch.rand(x["k"].shape, dtype=FLOAT64),
        "write_strength": torch.randn(x["v"].shape, dtype=FLOAT64),
    }
    return x | strengths


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


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("erase_key", [False, True])
def test_the_loop_erases_key_channels_writes_and_decays_value_channels(
    steps: int, erase_key: bool
) -> None:
    x = with_strengths_of_channels(random_inputs(5, steps=steps, erase_key=erase_key))
    g, h = -torch.rand(2, 5, 2, 5, dtype=FLOAT64), -torch.rand(2, 5, 2, 7, dtype=FLOAT64)
    o, final = chunk_delta(**x, log_decay=g, value_log_decay=h, scale=1.0, form="naive")
    # Each value channel's column s: s_i = (I - k p^T diag(b)) diag(exp(g + h)) s + w v k.
    p, states = x.get("erase_key", x["k"]), x["initial_state"].unbind(-1)
    for c in range(7):
        state = states[c][..., None]  # [B, H, K, 1]
        for i in range(5 * steps):
            t = i // steps
            decay = (g[:, t] + h[:, t, :, c, None]).exp() if i % steps == 0 else torch.ones(2, 2, 5)
            k = x["k"][:, i, :, :, None]
            erase = k @ p[:, i, :, None] @ torch.diag_embed(x["beta"][:, i])
            transition = (torch.eye(5, dtype=FLOAT64) - erase) @ torch.diag_embed(decay).double()
            written = (x["write_strength"] * x["v"])[:, i, :, c, None, None]
            state = transition @ state + written * k
            if i % steps == steps - 1:
                read = (x["q"][:, t, :, None] @ state).flatten(1)
                torch.testing.assert_close(o[:, t, :, c], read)
        torch.testing.assert_close(final[..., c, None], state)


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


@pytest.mark.parametrize("length", [1, 2, 63, 65, 130])
@pytest.mark.parametrize("kind", [None, "scalar", "channel"])
@pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-4), (FLOAT64, 1e-9)])
def test_strengths_of_channels_are_exact_at_any_length(
    length: int,
    kind: str | None,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = with_strengths_of_channels(random_inputs(length, erase_key=True))
    if kind is not None:
        x["log_decay"] = log_decay_of("mixed", *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("gate", ["0", "-20", "mild", "mixed"])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize(("steps", "channels"), [(1, False), (1, True), (3, True), (5, False)])
def test_decays_of_value_channels_are_exact_at_extreme_gates(
    gate: str,
    kind: str | None,
    steps: int,
    channels: bool,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    length = 70 if steps == 1 else 37
    x = random_inputs(length, steps=steps, erase_key=channels)
    if channels:
        x = with_strengths_of_channels(x)
    x["value_log_decay"] = log_decay_of(gate, 2, length, 2, 7)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x)
    assert max(errors.values()) < 1e-4, errors


def test_a_decay_of_a_single_value_channel_is_exact(
    errors_against_naive: Callable[..., dict[str, float]], log_decay_of: Callable[..., Tensor]
) -> None:
    """It runs as one decay a head."""
    x = random_inputs(37, steps=2)
    x["v"], x["initial_state"] = x["v"][..., :1], x["initial_state"][..., :1]
    x["value_log_decay"] = log_decay_of("mixed", 2, 37, 2, 1)
    errors = errors_against_naive(chunk_delta, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("by_value_head", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_grouped_values_read_their_group_s_key_head(
    channels: bool, by_value_head: bool, kind: str, log_decay_of: Callable[..., Tensor]
) -> None:
    x = random_inputs(20, steps=2, erase_key=True)
    x["v"] = torch.randn(2, 40, 6, 7, dtype=FLOAT64)
    x["initial_state"] = torch.randn(2, 6, 5, 7, dtype=FLOAT64)
    if channels:
        x = with_strengths_of_channels(x)
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))

    def wide(name: str) -> Tensor:
        return x[name].repeat_interleave(3, dim=0 if x[name].dim() == 1 else 2)

    if by_value_head:
        x["beta"] = torch.rand_like(wide("beta"))
        x["log_decay"] = -0.3 * torch.rand_like(wide("log_decay"))
    by_key_head = ["q", "k", "erase_key", *([] if by_value_head else ["beta", "log_decay"])]
    wanted = chunk_delta(**x | {name: wide(name) for name in by_key_head}, form="naive")
    for form in ("naive", "chunked"):
        for got, expected in zip(chunk_delta(**x, form=form), wanted, strict=True):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_grouped_values_add_up_in_their_key_head(
    kind: str | None,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(40)
    x["v"] = torch.randn(2, 40, 6, 7, dtype=FLOAT64)
    x["initial_state"] = torch.randn(2, 6, 5, 7, dtype=FLOAT64)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_one_strength_said_twice_is_one_strength(form: Form) -> None:
    x = random_inputs(40, erase_key=True)
    wanted = chunk_delta(**x, form=form)
    channels = x | {
        "beta": x["beta"][..., None].expand(x["k"].shape),
        "write_strength": x["beta"][..., None].expand(x["v"].shape),
    }
    for said_twice in (x | {"write_strength": x["beta"]}, channels):
        for got, expected in zip(chunk_delta(**said_twice, form=form), wanted, strict=True):
            torch.testing.assert_close(got, expected)


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


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_streaming_in_pieces_equals_the_whole(
    channels: bool,
    steps: int,
    kind: str,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(77, steps=steps).items()}
    x["beta"] = x["beta"] / 2
    state: Tensor = x.pop("initial_state")
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x)).float()
    if channels:
        x["beta"], x["write_strength"] = torch.rand_like(x["k"]), torch.rand_like(x["v"])
        x["value_log_decay"] = log_decay_of("mild", 2, 77, 2, 7).float()
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


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_output_and_final_state_add_up(
    channels: bool, kind: str | None, log_decay_of: Callable[..., Tensor]
) -> None:
    """Also that a second backward pass through one call starts afresh."""
    x = random_inputs(40, erase_key=True)
    if channels:
        x = with_strengths_of_channels(x)
        x["value_log_decay"] = log_decay_of("mild", 2, 40, 2, 7)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    leaves = [t.requires_grad_() for t in x.values()]
    o, state = chunk_delta(**x)
    from_o = torch.autograd.grad(o.sum(), leaves, retain_graph=True)
    from_state = torch.autograd.grad(state.sum(), leaves, retain_graph=True)
    both = torch.autograd.grad(o.sum() + state.sum(), leaves)
    for a, b, wanted in zip(from_o, from_state, both, strict=True):
        torch.testing.assert_close(a + b, wanted)
