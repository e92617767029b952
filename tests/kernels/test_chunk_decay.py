"""chunk_decay: the loop against dense formulas, the chunked form against the loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from linearch.kernels import chunk_decay

FLOAT64 = torch.float64
KINDS = {"constant": "H", "scalar": "B T H", "channel": "B T H K"}


def random_inputs(length: int, *, batch=2, heads=2, key_dim=5, value_dim=7) -> dict[str, Tensor]:
    shape = (batch, length, heads)
    return {
        "q": torch.randn(*shape, key_dim, dtype=FLOAT64),
        "k": torch.randn(*shape, key_dim, dtype=FLOAT64),
        "v": torch.randn(*shape, value_dim, dtype=FLOAT64),
        "initial_state": torch.randn(batch, heads, key_dim, value_dim, dtype=FLOAT64),
    }


def gate_shape(kind: str, inputs: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", inputs["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in KINDS[kind].split())


def test_the_loop_without_decay_is_masked_attention_without_softmax() -> None:
    x = random_inputs(6)
    del x["initial_state"]
    o, state = chunk_decay(**x, scale=0.5, form="naive")
    weights = torch.einsum("bthk,bshk->bhts", x["q"], x["k"]).tril() * 0.5
    torch.testing.assert_close(o, torch.einsum("bhts,bshv->bthv", weights, x["v"]))
    torch.testing.assert_close(state, torch.einsum("bshk,bshv->bhkv", x["k"], x["v"]))


@pytest.mark.parametrize("bonus", [False, True])
def test_the_loop_weighs_each_pair_by_the_decays_between(bonus: bool) -> None:
    x = random_inputs(6)
    g = -torch.rand(x["q"].shape, dtype=FLOAT64)
    h = -torch.rand(x["v"].shape, dtype=FLOAT64)
    u = torch.randn(x["q"].shape[2:], dtype=FLOAT64)
    start = x.pop("initial_state")
    extra = {"bonus": u} if bonus else {}
    o, _ = chunk_decay(
        **x, log_decay=g, value_log_decay=h, initial_state=start, scale=1.0, form="naive", **extra
    )
    for t in range(6):
        read = t if bonus else t + 1  # the decays up to here apply
        through = g[:, :read].sum(1)[..., None] + h[:, :read].sum(1)[:, :, None]
        state = start * through.exp()
        for s in range(read):
            between = g[:, s + 1 : read].sum(1)[..., None] + h[:, s + 1 : read].sum(1)[:, :, None]
            state = state + x["k"][:, s, :, :, None] * x["v"][:, s, :, None] * between.exp()
        if bonus:
            state = state + u[..., None] * x["k"][:, t, :, :, None] * x["v"][:, t, :, None]
        torch.testing.assert_close(o[:, t], torch.einsum("bhk,bhkv->bhv", x["q"][:, t], state))


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
    errors = errors_against_naive(chunk_decay, x, dtype=dtype)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("gate", ["0", "-20", "mild", "strong", "-inf"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_value", [False, True])
def test_extreme_gates_are_exact_with_their_gradients(
    gate: str,
    kind: str,
    by_value: bool,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(70)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    if by_value:
        x["value_log_decay"] = log_decay_of(gate if gate != "-inf" else "0", *x["v"].shape)
    errors = errors_against_naive(chunk_decay, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("decays", ["none", "scalar", "channel", "value", "channel+value"])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("length", [1, 65])
def test_bonus_value_decay_and_normaliser_combine(
    decays: str,
    normalise: bool,
    bonus: bool,
    length: int,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(length)
    for kind in KINDS:
        if kind in decays:
            x["log_decay"] = log_decay_of("mixed", *gate_shape(kind, x))
    if "value" in decays:
        x["value_log_decay"] = log_decay_of("mixed", *x["v"].shape)
    if bonus:
        x["bonus"] = torch.rand(2, 5, dtype=FLOAT64)
    if normalise:  # positive features, as linear attention has, keep the normaliser off zero
        x["q"], x["k"] = x["q"].abs() + 0.1, x["k"].abs() + 0.1
        x["initial_state"] = torch.rand(2, 2, 5, 8, dtype=FLOAT64) + 0.1
    errors = errors_against_naive(chunk_decay, x, normalise=normalise)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("gate_heads", [2, 6])
@pytest.mark.parametrize("kind", ["constant", "scalar", "channel"])
def test_grouped_values_read_their_group_s_key_head(
    gate_heads: int, kind: str, log_decay_of: Callable[..., Tensor]
) -> None:
    x = random_inputs(40)
    x["v"] = torch.randn(2, 40, 6, 7, dtype=FLOAT64)
    x["initial_state"] = torch.randn(2, 6, 5, 7, dtype=FLOAT64)
    axes = {"constant": (6,), "scalar": (2, 40, 6), "channel": (2, 40, 6, 5)}[kind]
    axis = 0 if kind == "constant" else 2
    g = log_decay_of("mild", *(gate_heads if i == axis else n for i, n in enumerate(axes)))
    wide = x | {name: x[name].repeat_interleave(3, dim=2) for name in ("q", "k")}
    o, state = chunk_decay(**x, log_decay=g)
    wide_g = g.repeat_interleave(6 // gate_heads, dim=axis)
    wide_o, wide_state = chunk_decay(**wide, log_decay=wide_g, form="naive")
    torch.testing.assert_close(o, wide_o)
    torch.testing.assert_close(state, wide_state)


@pytest.mark.parametrize("gate", ["mild", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_stay_within_a_hundredth(
    gate: str,
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(130)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_decay, x, dtype=torch.bfloat16, gradients=False)
    assert max(errors.values()) < 1e-2, errors


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_streaming_in_pieces_equals_the_whole(
    bonus: bool,
    kind: str,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(77).items()}
    state: Tensor = x.pop("initial_state")
    x["log_decay"] = log_decay_of("mixed", *gate_shape(kind, x)).float()
    extra = {"bonus": torch.randn(2, 5)} if bonus else {}
    whole, final = chunk_decay(**x, initial_state=state, **extra)
    pieces = []
    for start, end in [(0, 1), (1, 34), (34, 36), (36, 77)]:
        piece = {n: t if t.dim() == 1 else t[:, start:end] for n, t in x.items()}
        o, state = chunk_decay(**piece, initial_state=state, **extra)
        pieces.append(o)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-5
    assert relative_error(state, final) < 1e-5


def test_later_tokens_change_nothing_earlier(log_decay_of: Callable[..., Tensor]) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(64).items()}
    x["log_decay"] = log_decay_of("mixed", 2, 64, 2, 5).float()
    before, _ = chunk_decay(**x)
    for name in ("q", "k", "v"):
        x[name] = x[name].clone()
        x[name][:, 41:] = 100 * torch.randn_like(x[name][:, 41:])
    after, _ = chunk_decay(**x)
    torch.testing.assert_close(after[:, :41], before[:, :41], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:, 41:], before[:, 41:])


def test_a_normaliser_at_zero_gives_zero_not_nan() -> None:
    q = torch.zeros(1, 3, 1, 2)
    k, v = torch.rand(1, 3, 1, 2), torch.rand(1, 3, 1, 2)
    for form in ("naive", "chunked"):
        o, _ = chunk_decay(q, k, v, normalise=True, form=form)
        assert torch.equal(o, torch.zeros_like(o))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_output_and_final_state_add_up(
    kind: str | None, log_decay_of: Callable[..., Tensor]
) -> None:
    """Also that a second backward pass through one call starts afresh."""
    x = random_inputs(40)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    leaves = [t.requires_grad_() for t in x.values()]
    o, state = chunk_decay(**x)
    from_o = torch.autograd.grad(o.sum(), leaves, retain_graph=True)
    from_state = torch.autograd.grad(state.sum(), leaves, retain_graph=True)
    both = torch.autograd.grad(o.sum() + state.sum(), leaves)
    for a, b, wanted in zip(from_o, from_state, both, strict=True):
        torch.testing.assert_close(a + b, wanted)


def test_the_final_state_owns_its_storage() -> None:
    x = random_inputs(130)
    _, state = chunk_decay(**x)
    assert state.untyped_storage().nbytes() == state.numel() * state.element_size()
