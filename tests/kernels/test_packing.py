"""cu_seqlens: sequences packed into one row give what each gives alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch import kernels
from linearch.kernels import packing
from linearch.kernels.checks import Arguments

FLOAT64 = torch.float64
BOUNDS = [0, 1, 64, 64, 129, 136]  # lengths of 1, 63, 0, 65 and 7
SEQUENCES, LENGTH = len(BOUNDS) - 1, BOUNDS[-1]
SHARED = ("bonus", "weight", "bias")

Shapes = dict[str, tuple[int, ...]]
QK: Shapes = {"q": (1, LENGTH, 2, 5), "k": (1, LENGTH, 2, 5)}
QKV = QK | {"v": (1, LENGTH, 2, 7)}
TWO_STEPS: Shapes = {
    "q": (1, LENGTH, 2, 5),
    "k": (1, 2 * LENGTH, 2, 5),
    "v": (1, 2 * LENGTH, 2, 7),
    "beta": (1, 2 * LENGTH, 2),
    "erase_key": (1, 2 * LENGTH, 2, 5),
}
BETA: Shapes = {"beta": (1, LENGTH, 2)}
PAIR: Shapes = {"a": (1, LENGTH, 2, 5), "b": (1, LENGTH, 2, 5)}
START: Shapes = {"initial_state": (SEQUENCES, 2, 5, 7)}
SCALAR: Shapes = {"log_decay": (1, LENGTH, 2)}
CONSTANT: Shapes = {"log_decay": (2,)}
CHANNEL: Shapes = {"log_decay": (1, LENGTH, 2, 5)}
VALUE: Shapes = {"value_log_decay": (1, LENGTH, 2, 7)}
X: Shapes = {"x": (1, LENGTH, 6)}
TAPS: Shapes = {"weight": (6, 4), "bias": (6,), "initial_state": (SEQUENCES, 3, 6)}

Operation = Callable[..., tuple[Tensor, Tensor]]
CASES: dict[str, tuple[Operation, Shapes]] = {
    "decay": (kernels.chunk_decay, QKV | START),
    "decay, constant": (kernels.chunk_decay, QKV | START | CONSTANT),
    "decay, channel and value": (kernels.chunk_decay, QKV | START | CHANNEL | VALUE),
    "decay, bonus": (kernels.chunk_decay, QKV | START | CHANNEL | {"bonus": (2, 5)}),
    "decay, normalised": (
        partial(kernels.chunk_decay, normalise=True),
        QKV | SCALAR | {"initial_state": (SEQUENCES, 2, 5, 8)},
    ),
    "decay, grouped values, no state": (
        kernels.chunk_decay,
        QK | {"v": (1, LENGTH, 4, 7)} | SCALAR,
    ),
    "delta": (kernels.chunk_delta, QKV | BETA | START),
    "delta, constant": (kernels.chunk_delta, QKV | BETA | START | CONSTANT),
    "delta, two steps": (kernels.chunk_delta, TWO_STEPS | START | CHANNEL),
    "delta, channels, grouped values": (
        kernels.chunk_delta,
        QK
        | {"v": (1, LENGTH, 4, 7), "value_log_decay": (1, LENGTH, 4, 7)}
        | {"beta": (1, LENGTH, 2, 5), "write_strength": (1, LENGTH, 4, 7)}
        | {"log_decay": (4,), "initial_state": (SEQUENCES, 4, 5, 7)},
    ),
    "two streams": (kernels.chunk_dplr, QKV | PAIR | START | CHANNEL),
    "two streams, constant": (kernels.chunk_dplr, QKV | PAIR | CONSTANT),
    "oja": (kernels.chunk_oja, QKV | BETA | START | {"log_decay": (1, LENGTH, 2, 7)}),
    "oja, constant, no state": (kernels.chunk_oja, QKV | BETA | CONSTANT),
    "scan": (kernels.scan, X | {"log_decay": (1, LENGTH, 6), "initial_state": (SEQUENCES, 6)}),
    "scan, constant, no state": (kernels.scan, X | {"log_decay": (6,)}),
    "convolution": (partial(kernels.short_convolution, activation="silu"), X | TAPS),
    "convolution, unit heads": (
        partial(kernels.short_convolution, normalise=4, head_dim=2),
        X | TAPS,
    ),
    "convolution, no state": (kernels.short_convolution, X | {"weight": (6, 4)}),
    "convolution of one tap": (kernels.short_convolution, X | {"weight": (6, 1)}),
}


def random_inputs(shapes: Shapes, log_decay_of: Callable[..., Tensor]) -> dict[str, Tensor]:
    x = {name: torch.randn(shape, dtype=FLOAT64) for name, shape in shapes.items()}
    for name in x:
        if name.endswith("log_decay"):
            x[name] = log_decay_of("mixed", *shapes[name])
        if name in ("k", "erase_key", "v", "a"):
            x[name] = F.normalize(x[name], dim=-1)
        if name == "b":
            x[name] = -0.7 * x["a"]
        if name == "beta":
            x[name] = x[name].sigmoid()
    return x


def packed(
    operation: Operation, x: dict[str, Tensor], bounds: list[int] = BOUNDS, **options: Any
) -> tuple[Tensor, Tensor]:
    return operation(**x, cu_seqlens=torch.tensor(bounds), **options)


def one_by_one(
    operation: Operation, x: dict[str, Tensor], bounds: list[int] = BOUNDS, **options: Any
) -> tuple[Tensor, Tensor]:
    """What `packed` should return, from calls with one sequence each."""
    outputs, states = [], []
    for n, (start, end) in enumerate(pairwise(bounds)):
        piece = {name: _of_sequence(name, t, n, start, end, bounds[-1]) for name, t in x.items()}
        if start == end:
            state = piece.get("initial_state")
        else:
            o, state = operation(**piece, **options)
            outputs.append(o)
        states.append(state)
    nothing = torch.zeros_like(next(state for state in states if state is not None))
    states = [nothing if state is None else state for state in states]
    return torch.cat(outputs, dim=1), torch.cat(states)


def _of_sequence(name: str, x: Tensor, n: int, start: int, end: int, length: int) -> Tensor:
    if name == "initial_state":
        return x[n : n + 1]
    if name in SHARED or x.dim() == 1:
        return x
    steps = x.shape[1] // length
    return x[:, start * steps : end * steps]


@pytest.fixture(params=["one batch", "several batches"])
def call_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides whether these sequences, two classes of lengths, share a batch."""
    numbers = 0 if request.param == "several batches" else 2**40
    monkeypatch.setattr(packing, "_CALL_NUMBERS_ON_CPU", numbers)


@pytest.mark.usefixtures("call_numbers")
@pytest.mark.parametrize("form", ["naive", "chunked"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_states_and_gradients_are_those_of_each_sequence_alone(
    case: str,
    form: str,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    operation, shapes = CASES[case]
    x = {n: t.requires_grad_() for n, t in random_inputs(shapes, log_decay_of).items()}
    for name, error in errors_against_one_by_one(operation, x, relative_error, form=form).items():
        assert error < 1e-9, name


def errors_against_one_by_one(
    operation: Operation,
    x: dict[str, Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
    **options: Any,
) -> dict[str, float]:
    wanted = one_by_one(operation, x, **options)
    weights = [torch.randn_like(t) for t in wanted]

    def with_gradients(results: tuple[Tensor, Tensor]) -> list[Tensor]:
        loss = sum((t * w).sum() for t, w in zip(results, weights, strict=True))
        return [*results, *torch.autograd.grad(loss, list(x.values()))]

    pairs = zip(
        with_gradients(packed(operation, x, **options)), with_gradients(wanted), strict=True
    )
    errors = [relative_error(got, alone) for got, alone in pairs]
    return dict(zip(["o", "state", *x], errors, strict=True))


VERY_UNEVEN = [0, 1, 2001, 2006, 2069, 2133, 2198]  # lengths of 1, 2000, 5, 63, 64 and 65


@pytest.mark.parametrize("bounds", [VERY_UNEVEN, [0, 128, 192], [0, 70, 140, 210], [0, 9]])
@pytest.mark.parametrize("operation", [kernels.chunk_decay, kernels.chunk_delta])
def test_sequences_may_be_very_uneven_or_of_one_length(
    operation: Operation,
    bounds: list[int],
    monkeypatch: pytest.MonkeyPatch,
    log_decay_of: Callable[..., Tensor],
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    monkeypatch.setattr(packing, "_CALL_NUMBERS_ON_CPU", 0)
    shapes: Shapes = {name: (1, bounds[-1], 2, 5) for name in ("q", "k", "v")}
    shapes |= {"log_decay": (1, bounds[-1], 2), "initial_state": (len(bounds) - 1, 2, 5, 5)}
    if operation is kernels.chunk_delta:
        shapes["beta"] = (1, bounds[-1], 2)
    x = {n: t.requires_grad_() for n, t in random_inputs(shapes, log_decay_of).items()}
    errors = errors_against_one_by_one(operation, x, relative_error, bounds=bounds)
    assert max(errors.values()) < 1e-9, errors


def test_uneven_sequences_are_padded_by_a_quarter_or_a_chunk_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "_CALL_NUMBERS_ON_CPU", 0)
    seen = []

    def operation(x: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
        seen.append(x.shape[:2])
        return x, x[:, -1]

    x = torch.randn(1, VERY_UNEVEN[-1], 1)
    check = Arguments("operation")
    check.tensor("x", x, "B T D")
    rows = packing.Packing.of(check, torch.tensor(VERY_UNEVEN), x.device)
    y, _ = rows.in_rows(operation, {"x": x}, initial_state=None)
    assert torch.equal(y, x)
    assert seen == [(1, 2000), (1, 65), (4, 64)]


@pytest.mark.usefixtures("call_numbers")
def test_the_loops_gradients_can_be_differentiated_again() -> None:
    def packed_loop(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        *qkv, state = leaves
        bounds = torch.tensor([0, 1, 3, 68])
        return kernels.chunk_decay(*qkv, initial_state=state, cu_seqlens=bounds, form="naive")

    leaves = [torch.randn(1, 68, 1, 1, dtype=FLOAT64, requires_grad=True) for _ in range(3)]
    state = torch.randn(3, 1, 1, 1, dtype=FLOAT64, requires_grad=True)
    assert torch.autograd.gradgradcheck(packed_loop, (*leaves, state), fast_mode=True)


@pytest.mark.usefixtures("call_numbers")
@pytest.mark.parametrize("case", ["decay, channel and value", "delta", "convolution"])
def test_what_is_not_a_number_stays_in_its_sequence(
    case: str, log_decay_of: Callable[..., Tensor]
) -> None:
    operation, shapes = CASES[case]
    x = random_inputs(shapes, log_decay_of)
    x["x" if "x" in x else "v"][:, BOUNDS[4] - 1] = torch.nan
    o, state = packed(operation, x)
    spoilt = [bool(part.isnan().any()) for part in o.split([1, 63, 65, 7], dim=1)]
    assert spoilt == [False, False, True, False]
    assert state.isnan().flatten(1).any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_sequences_of_one_token_take_one_step_each(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 1, 4, 2, 5).unbind()
    state = torch.randn(4, 2, 5, 5)
    bounds = torch.arange(5, dtype=dtype)
    o, final = kernels.chunk_decay(q, k, v, initial_state=state, cu_seqlens=bounds)
    in_rows = (t.transpose(0, 1) for t in (q, k, v))
    wanted, wanted_final = kernels.chunk_decay(*in_rows, initial_state=state)
    assert torch.equal(o, wanted.transpose(0, 1))
    assert torch.equal(final, wanted_final)


def test_bfloat16_stays_what_it_was() -> None:
    x = torch.randn(1, LENGTH, 6, dtype=torch.bfloat16)
    h, state = packed(kernels.scan, {"x": x, "log_decay": -torch.rand(6)})
    assert (h.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    y, last = packed(kernels.short_convolution, {"x": x, "weight": torch.randn(6, 4)})
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.bfloat16)


BAD: list[tuple[Any, str]] = [
    ([0, 6], r"scan: cu_seqlens is a list; wanted a tensor"),
    (torch.tensor([0.0, 6.0]), r"cu_seqlens has dtype torch.float32 and shape \[2\]; wanted int32"),
    (torch.tensor([[0, 6]]), r"shape \[1, 2\]; wanted int32 or int64 \[N \+ 1\]"),
    (torch.tensor([0]), r"shape \[1\]; wanted int32 or int64 \[N \+ 1\]"),
    (torch.tensor([0, 6], device="meta"), r"cu_seqlens is on meta; wanted cpu, where x is"),
    (torch.tensor([1, 6]), r"cu_seqlens goes from 1 to 6; wanted 0 to T = 6 as in x"),
    (torch.tensor([0, 5]), r"cu_seqlens goes from 0 to 5; wanted 0 to T = 6 as in x"),
    (torch.tensor([0, 4, 3, 6]), r"cu_seqlens falls from 4 to 3; wanted bounds in order"),
]


@pytest.mark.parametrize(("bounds", "message"), BAD)
def test_wrong_boundaries_are_named(bounds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.scan(torch.zeros(1, 6, 3), torch.zeros(3), cu_seqlens=bounds)


@pytest.mark.parametrize("operation", [kernels.chunk_decay, kernels.chunk_oja])
def test_a_batch_of_packed_rows_is_refused(operation: Operation) -> None:
    q = torch.zeros(2, 6, 4, 3)
    beta = {} if operation is kernels.chunk_decay else {"beta": torch.zeros(2, 6, 4)}
    with pytest.raises(ValueError, match="q has B = 2; wanted 1 beside cu_seqlens"):
        operation(q, q, q, **beta, cu_seqlens=torch.tensor([0, 6]))


def test_there_is_one_state_for_each_sequence() -> None:
    x, state = torch.zeros(1, 6, 3), torch.zeros(1, 3)
    with pytest.raises(ValueError, match=r"initial_state has .* 1 on axis 0; wanted B = 2 as in"):
        kernels.scan(x, x, initial_state=state, cu_seqlens=torch.tensor([0, 2, 6]))
