"""On an NVIDIA GPU attention's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

from linearch.kernels import causal_attention

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
DIMS = [(16, 16), (32, 48), (64, 64), (24, 256), (100, 36), (128, 128), (256, 192)]
GATES = [None, "0", "mixed", "mild"]
Errors = Callable[..., dict[str, float]]
LogDecay = Callable[..., Tensor]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
    }


def attend(**x: Any) -> Tensor:
    """As a layer under autocast calls it: gates and sinks stay float32."""
    narrow = x["q"].dtype == BFLOAT16
    wide = {name: x[name].float() for name in ("log_decay", "sinks") if name in x and narrow}
    return causal_attention(**(x | wide))[0]


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("window", [None, 70])
def test_bfloat16_agrees(
    window: int | None,
    gate: str | None,
    dims: tuple[int, int],
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(300, *dims)
    if gate is not None:
        x["log_decay"] = log_decay_of(gate, 2, 300, 2)
    errors = errors_against_naive(
        attend, x, dtype=BFLOAT16, device="cuda", form="triton", window=window
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize("dims", [(64, 64), (100, 36), (128, 128)])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("window", [None, 40])
def test_float32_agrees(
    window: int | None,
    gate: str | None,
    dims: tuple[int, int],
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(130, *dims) | {"sinks": torch.randn(2, dtype=FLOAT64)}
    if gate is not None:
        x["log_decay"] = log_decay_of(gate, 2, 130, 2)
    errors = errors_against_naive(attend, x, device="cuda", form="triton", window=window)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_a_gate_s_gradient_is_exact_where_every_token_sees_itself_alone(
    dtype: torch.dtype, errors_against_naive: Errors
) -> None:
    """That of q and k is then 1e-9 of the terms it is the difference of: rounding in any form."""
    x = random_inputs(200, 64, 64) | {"log_decay": torch.full((2, 200, 2), -20.0, dtype=FLOAT64)}
    errors = errors_against_naive(attend, x, dtype=dtype, device="cuda", form="triton")
    bar = 1e-4 if dtype == torch.float32 else 1e-2
    assert max(errors[name] for name in ("output0", "dv", "dlog_decay")) < bar, errors


@pytest.mark.parametrize("window", [None, 1, 64, 200])
@pytest.mark.parametrize("length", [1, 2, 63, 65, 129, 1000])
def test_any_length_and_window_agree(
    length: int,
    window: int | None,
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(length, 64, 64)
    x |= {"log_decay": log_decay_of("mild", 2, length, 2), "sinks": torch.randn(2, dtype=FLOAT64)}
    errors = errors_against_naive(
        attend, x, dtype=BFLOAT16, device="cuda", form="triton", window=window
    )
    # A sum over all tokens of terms of either sign, which may be small by chance.
    assert errors.pop("dsinks") < 5e-2, errors
    assert all(error < 1e-2 for error in errors.values()), errors


@pytest.mark.parametrize("window", [None, 64])
def test_a_long_sequence_s_sums_cost_no_accuracy(
    window: int | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    """What is forgotten before the last 1,000 of 100,000 tokens changes neither them nor a gate."""
    x = cuda_inputs("decay", heads=1, length=100_000)
    x = {name: t[:1] for name, t in x.items()}
    x["log_decay"] = x["log_decay"] - 2.0
    x["log_decay"][:, -1000] = -100.0
    last = {name: t[:, -1000:] for name, t in x.items()}
    whole, alone = (
        step({n: t.detach().clone().requires_grad_() for n, t in y.items()}, window=window)
        for y in (x, last)
    )
    for a, b in zip(whole, alone, strict=True):
        assert relative_error(a[:, -900:], b[:, -900:]) < 5e-3


def cuda_inputs(kind: str, *, heads: int = 2, length: int = 200) -> dict[str, Tensor]:
    rows = (2, length, heads)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    if kind == "decay":
        x["log_decay"] = -0.3 * torch.rand(rows, device="cuda")
    if kind == "sinks":
        x["sinks"] = torch.randn(heads, device="cuda")
    return x


def step(x: dict[str, Tensor], window: int | None = None) -> tuple[Tensor, ...]:
    o, _ = causal_attention(**x, window=window, form="triton")
    return o.detach(), *torch.autograd.grad(o.float().square().sum(), list(x.values()))


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_slices_of_one_projection_give_what_copies_give(kind: str) -> None:
    x = cuda_inputs(kind)
    packed = torch.cat([x["q"], x["k"], x["v"]], dim=2)
    views = dict(zip("qkv", packed.chunk(3, dim=2), strict=True))
    apart = {name: t.mT.contiguous().mT for name, t in views.items()}
    assert apart["q"].stride(-1) != 1
    wanted = step({n: t.clone().requires_grad_() for n, t in x.items()})
    for strided in (views, apart):
        got = step({n: t.detach().requires_grad_() for n, t in (x | strided).items()})
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_a_training_step_is_captured_in_a_cuda_graph(
    kind: str, in_a_graph_and_by_itself: Both
) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    for a, b in in_a_graph_and_by_itself(lambda: step(x, window=64)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["plain", "decay", "sinks"])
def test_a_training_step_is_compiled_as_one_graph(
    kind: str, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}

    def loss(x: dict[str, Tensor]) -> Tensor:
        o, _ = causal_attention(**x, window=64, form="triton")
        return o.float().square().sum()

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2


def test_more_than_two_to_the_31_elements_are_addressed(
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    deterministic.fill_uninitialized_memory = False
    rows = (1, 2**17 + 5, 128)
    q, k, v = (torch.randn(*rows, 128, device="cuda", dtype=BFLOAT16) for _ in range(3))
    g = -0.1 * torch.rand(rows, device="cuda")
    assert q.numel() > 2**31

    def run(heads: slice) -> tuple[Tensor, ...]:
        x: list[Any] = [t[:, :, heads].detach().requires_grad_() for t in (q, k, v, g)]
        o, _ = causal_attention(*x, window=64, form="triton")
        grads = torch.autograd.grad(o, x, o.detach())
        return tuple(t[:, :, -1].clone() for t in (o.detach(), *grads))

    for a, b in zip(run(slice(None)), run(slice(127, 128)), strict=True):
        assert relative_error(a, b) < 5e-3
