"""On an NVIDIA GPU chunk_oja's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_oja

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]
Errors = Callable[..., dict[str, float]]
LogDecay = Callable[..., Tensor]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
SHAPES = {"scalar": "BTH", "channel": "BTHV"}
DIMS = [(16, 16), (64, 16), (32, 24), (64, 64), (100, 36), (16, 64), (128, 128), (256, 192)]
GATED = [(None, "0"), *((kind, gate) for kind in SHAPES for gate in ("0", "-20", "mixed", "mild"))]


def random_inputs(
    length: int, key_dim: int, value_dim: int, *, strongest: float = 2.0
) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": F.normalize(torch.randn(*rows, value_dim, dtype=FLOAT64), dim=-1),
        "beta": strongest * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


def gate_shape(kind: str, x: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHV", x["v"].shape, strict=True))
    return tuple(sizes[axis] for axis in SHAPES[kind])


def in_float32_but_for_qkv(**x: Any) -> tuple[Tensor, Tensor]:
    """As a layer under autocast calls it: gates, strengths and states stay float32."""
    if x["q"].dtype != FLOAT64:
        wide = ("beta", "log_decay", "initial_state")
        x |= {name: x[name].float() for name in wide if name in x}
    return chunk_oja(**x)


def assert_agrees_in_bfloat16(x: dict[str, Tensor], errors_against_naive: Errors) -> None:
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(200, *dims)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    assert_agrees_in_bfloat16(x, errors_against_naive)


@pytest.mark.parametrize("dims", [(64, 64), (128, 128)])
def test_a_thousand_tokens_that_forget_nothing_agree_in_bfloat16(
    dims: tuple[int, int], errors_against_naive: Errors
) -> None:
    assert_agrees_in_bfloat16(random_inputs(1000, *dims), errors_against_naive)


@pytest.mark.parametrize("kind", [None, *SHAPES])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_any_length_agrees(
    length: int, kind: str | None, errors_against_naive: Errors, log_decay_of: LogDecay
) -> None:
    x = random_inputs(length, 64, 64, strongest=1.0)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    assert_agrees_in_bfloat16(x, errors_against_naive)


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
    errors_against_naive: Errors,
    log_decay_of: LogDecay,
) -> None:
    x = random_inputs(130, *dims)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_oja, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


def test_values_far_from_unit_length_do_not_overflow(errors_against_naive: Errors) -> None:
    x = random_inputs(130, 64, 64)
    x["v"], x["beta"] = 1000 * x["v"], 1e-6 * x["beta"]
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert all(error < 1e-2 for error in errors.values()), errors


def cuda_inputs(kind: str | None) -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    x["v"] = F.normalize(x["v"], dim=-1)
    x["beta"] = torch.rand(rows, device="cuda")
    if kind is not None:
        shapes = {"scalar": rows, "channel": (*rows, 64)}
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    return x


def step(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = [t for t in x.values() if t.requires_grad]
    o, state = chunk_oja(**x, form="triton")
    loss = o.float().square().sum() + state.square().sum()
    return o.detach(), state.detach(), *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("kind", [None, *SHAPES])
def test_slices_of_one_projection_give_what_copies_give(kind: str | None) -> None:
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


@pytest.mark.parametrize("kind", [None, *SHAPES])
def test_what_comes_after_does_not_change_how_a_token_rounds(
    kind: str | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = cuda_inputs(kind)
    other = {name: t.clone() for name, t in x.items()}
    for name, t in cuda_inputs(kind).items():
        other[name][:, 20:] = t[:, 20:]
    before, after = (chunk_oja(**given, form="triton")[0][:, :20] for given in (x, other))
    assert relative_error(before, after) < 1e-4  # 2e-3 where rounding does change


@pytest.mark.parametrize("kind", [None, *SHAPES])
def test_a_pass_without_gradients_gives_what_a_training_step_does(kind: str | None) -> None:
    x = cuda_inputs(kind)
    alone, _ = chunk_oja(**x, form="triton")
    trained, *_ = step({name: t.requires_grad_() for name, t in x.items()})
    assert torch.equal(alone, trained)


@pytest.mark.parametrize("kind", [None, *SHAPES])
def test_a_training_step_is_captured_in_a_cuda_graph(
    kind: str | None, in_a_graph_and_by_itself: Both
) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}
    for a, b in in_a_graph_and_by_itself(lambda: step(x)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [None, *SHAPES])
def test_a_training_step_is_compiled_as_one_graph(
    kind: str | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs(kind).items()}

    def loss(x: dict[str, Tensor]) -> Tensor:
        o, state = chunk_oja(**x, form="triton")
        return o.float().square().sum() + state.square().sum()

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2
