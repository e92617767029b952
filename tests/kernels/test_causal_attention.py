"""causal_attention: the loop against dense softmax, the blocks against the loop, the past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from linearch.kernels import causal_attention

FLOAT64 = torch.float64


def random_inputs(length: int) -> dict[str, Tensor]:
    return {
        "q": torch.randn(2, length, 2, 5, dtype=FLOAT64),
        "k": torch.randn(2, length, 2, 5, dtype=FLOAT64),
        "v": torch.randn(2, length, 2, 7, dtype=FLOAT64),
    }


def dense(
    x: dict[str, Tensor], log_decay: Tensor, sinks: Tensor, window: int | None = None
) -> Tensor:
    """log_decay [B, T, H]; the decay between two tokens is the difference of sums."""
    length = x["q"].shape[1]
    sums = log_decay.cumsum(1).mT  # [B, H, T]
    scores = torch.einsum("bthk,bshk->bhts", x["q"], x["k"]) * x["q"].shape[-1] ** -0.5
    scores = scores + sums[..., :, None] - sums[..., None, :]
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = (distance < 0) | (distance >= (window or length))
    weights = scores.masked_fill(hidden, float("-inf")).exp()
    weights = weights / (weights.sum(-1, keepdim=True) + sinks.exp()[:, None, None])
    return torch.einsum("bhts,bshv->bthv", weights, x["v"])


def random_past(rows: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    keys = torch.randn(2, rows, 2, 5, dtype=FLOAT64)
    return keys, torch.randn(2, rows, 2, 7, dtype=FLOAT64), torch.tensor(count)


@pytest.mark.parametrize("window", [None, 3])
def test_the_loop_is_a_masked_softmax(window: int | None) -> None:
    x = random_inputs(9)
    o, _ = causal_attention(**x, window=window, form="naive")
    scores = torch.einsum("bthk,bshk->bhts", x["q"], x["k"]) * 5**-0.5
    distance = torch.arange(9)[:, None] - torch.arange(9)
    hidden = (distance < 0) | (distance >= (window or 9))
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    torch.testing.assert_close(o, torch.einsum("bhts,bshv->bthv", weights, x["v"]))


@pytest.mark.parametrize("window", [None, 3])
def test_the_loop_subtracts_decays_and_divides_by_the_sinks_too(window: int | None) -> None:
    x, sinks = random_inputs(9), torch.randn(2, dtype=FLOAT64)
    log_decay = -torch.rand(2, 9, 2, dtype=FLOAT64)
    o, _ = causal_attention(**x, log_decay=log_decay, sinks=sinks, window=window, form="naive")
    torch.testing.assert_close(o, dense(x, log_decay, sinks, window))


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_a_constant_decay_is_alibi(form: str) -> None:
    x, slopes = random_inputs(9), torch.tensor([-0.5, -0.25], dtype=FLOAT64)
    distance = torch.arange(9)[:, None] - torch.arange(9)
    scores = torch.einsum("bthk,bshk->bhts", x["q"], x["k"]) * 5**-0.5
    scores = scores + slopes[:, None, None] * distance
    weights = scores.masked_fill(distance < 0, float("-inf")).softmax(-1)
    o, past = causal_attention(**x, log_decay=slopes, form=form)
    torch.testing.assert_close(o, torch.einsum("bhts,bshv->bthv", weights, x["v"]))
    torch.testing.assert_close(past[3], slopes.expand(2, 9, 2))


@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_a_decay_of_minus_infinity_forgets_all_before_it(form: str) -> None:
    x, log_decay = random_inputs(9), torch.zeros(2, 9, 2, dtype=FLOAT64)
    log_decay[:, 4] = float("-inf")
    log_decay.requires_grad_()
    o, _ = causal_attention(**x, log_decay=log_decay, form=form)
    rest, _ = causal_attention(**{name: t[:, 4:] for name, t in x.items()})
    torch.testing.assert_close(o[:, 4:], rest)
    assert torch.autograd.grad(o.sum(), log_decay)[0].isfinite().all()


@pytest.mark.parametrize("length", [1, 63, 65])
@pytest.mark.parametrize("window", [None, 1, 7, 64])
@pytest.mark.parametrize("gate", ["0", "mixed", "mild"])
def test_decays_and_sinks_in_blocks_equal_the_loop(
    length: int,
    window: int | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    def attend(**inputs: Any) -> Tensor:
        return causal_attention(**inputs, window=window)[0]

    x = random_inputs(length) | {"log_decay": log_decay_of(gate, 2, length, 2)}
    for inputs in (x, x | {"sinks": torch.randn(2, dtype=FLOAT64)}):
        errors = errors_against_naive(attend, inputs)
        assert max(errors.values()) < 1e-4, errors


def test_a_gate_s_gradient_is_exact_where_every_token_sees_itself_alone(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    """That of q and k is then 1e-9 of the terms it is the difference of: rounding in any form."""
    x = random_inputs(65) | {"log_decay": torch.full((2, 65, 2), -20.0, dtype=FLOAT64)}
    errors = errors_against_naive(lambda **inputs: causal_attention(**inputs)[0], x)
    assert max(errors[name] for name in ("output0", "dv", "dlog_decay")) < 1e-5, errors


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("window", [None, 7])
def test_sinks_alone_in_blocks_equal_the_loop(
    length: int, window: int | None, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    def attend(**inputs: Any) -> Tensor:
        return causal_attention(**inputs, window=window)[0]

    x = random_inputs(length) | {"sinks": torch.randn(2, dtype=FLOAT64)}
    errors = errors_against_naive(attend, x)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("length", [1, 2, 63, 65, 130])
@pytest.mark.parametrize("window", [None, 1, 5, 40, 500])
@pytest.mark.parametrize("count", [None, 0, 3])
def test_the_blocks_equal_the_loop(
    length: int,
    window: int | None,
    count: int | None,
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    past = None
    if count is not None:
        rows = 4 if window is None else window - 1
        past = random_past(rows, min(count, rows))

    def attend(**inputs: Any) -> Tensor:
        dtype = inputs["q"].dtype
        cast = past and (past[0].to(dtype), past[1].to(dtype), past[2])
        return causal_attention(**inputs, window=window, past=cast)[0]

    errors = errors_against_naive(attend, random_inputs(length))
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("window", [None, 1, 4, 40])
def test_streaming_in_pieces_equals_the_whole(
    window: int | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = {name: tensor.float() for name, tensor in random_inputs(90).items()}
    whole, _ = causal_attention(**x, window=window)
    past, pieces = None, []
    for start, end in [(0, 1), (1, 3), (3, 70), (70, 71), (71, 90)]:
        piece = {name: tensor[:, start:end] for name, tensor in x.items()}
        o, past = causal_attention(**piece, window=window, past=past)
        pieces.append(o)
        assert past[2].item() == (end if window is None else min(end, window - 1))
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-5


@pytest.mark.parametrize("window", [None, 1, 4, 40])
@pytest.mark.parametrize("form", ["naive", "chunked"])
def test_streaming_with_decays_and_sinks_equals_the_whole(
    form: str, window: int | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = random_inputs(90) | {"log_decay": -torch.rand(2, 90, 2, dtype=FLOAT64)}
    sinks = torch.randn(2, dtype=FLOAT64)
    whole, _ = causal_attention(**x, sinks=sinks, window=window)
    past, pieces = None, []
    for start, end in [(0, 1), (1, 3), (3, 70), (70, 71), (71, 90)]:
        piece = {name: tensor[:, start:end] for name, tensor in x.items()}
        o, past = causal_attention(**piece, sinks=sinks, window=window, past=past, form=form)
        pieces.append(o)
        assert [rows.shape[1] for rows in (past[0], past[1], past[3])] == [
            end if window is None else window - 1
        ] * 3
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-12


def test_a_past_without_decays_has_three_tensors() -> None:
    _, past = causal_attention(**random_inputs(3), sinks=torch.zeros(2, dtype=FLOAT64))
    assert len(past) == 3


def test_a_window_s_past_has_one_size_and_its_own_storage() -> None:
    past, shapes = None, set()
    for length in (1, 2, 50, 1):
        _, past = causal_attention(**random_inputs(length), window=8, past=past)
        shapes.add((past[0].shape, past[1].shape))
        for rows in past[:2]:
            assert rows.untyped_storage().nbytes() == rows.numel() * rows.element_size()
    assert shapes == {((2, 7, 2, 5), (2, 7, 2, 7))}


def test_rows_that_were_never_seen_are_not_attended() -> None:
    x, (keys, values, count) = random_inputs(6), random_past(7, 2)
    wanted, _ = causal_attention(**x, window=8, past=(keys, values, count))
    keys[:, :5], values[:, :5] = 1e4, 1e4
    got, _ = causal_attention(**x, window=8, past=(keys, values, count))
    torch.testing.assert_close(got, wanted)


def test_gradients_reach_the_past() -> None:
    keys, values, count = random_past(3, 3)
    decays, now = (-torch.rand(2, 8, 2, dtype=FLOAT64)).split((3, 5), dim=1)
    leaves = [x.requires_grad_() for x in (keys, values, decays)]
    grads = []
    for form in ("naive", "chunked"):
        torch.manual_seed(2)
        past = (keys, values, count, decays)
        o, _ = causal_attention(**random_inputs(5), log_decay=now, window=4, past=past, form=form)
        grads.append(torch.autograd.grad(o.square().sum(), leaves))
    for naive, blocks in zip(*grads, strict=True):
        torch.testing.assert_close(blocks, naive)


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("decays", [False, True])
def test_bfloat16_inputs_stay_within_a_hundredth(
    decays: bool, window: int | None, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    def attend(**inputs: Any) -> Tensor:
        return causal_attention(**inputs, window=window)[0]

    x = random_inputs(130)
    if decays:
        x["log_decay"] = -torch.rand(2, 130, 2, dtype=FLOAT64)
    errors = errors_against_naive(attend, x, dtype=torch.bfloat16, gradients=False)
    assert max(errors.values()) < 1e-2, errors
