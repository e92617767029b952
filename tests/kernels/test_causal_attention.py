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
    keys.requires_grad_(), values.requires_grad_()
    grads = []
    for form in ("naive", "chunked"):
        torch.manual_seed(2)
        o, _ = causal_attention(**random_inputs(5), window=4, past=(keys, values, count), form=form)
        grads.append(torch.autograd.grad(o.square().sum(), (keys, values)))
    for naive, blocks in zip(*grads, strict=True):
        torch.testing.assert_close(blocks, naive)


@pytest.mark.parametrize("window", [None, 16])
def test_bfloat16_inputs_stay_within_a_hundredth(
    window: int | None, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    def attend(**inputs: Any) -> Tensor:
        return causal_attention(**inputs, window=window)[0]

    errors = errors_against_naive(attend, random_inputs(130), dtype=torch.bfloat16, gradients=False)
    assert max(errors.values()) < 1e-2, errors
