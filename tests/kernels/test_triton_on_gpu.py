"""On an NVIDIA GPU the Triton forms agree with the float64 loops, also inside graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import deterministic

from linearch.kernels import chunk_decay
from linearch.kernels.forms import force_form

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
SHAPES = {"scalar": "BTH", "channel": "BTHK"}
DIMS = [(16, 16), (32, 48), (64, 64), (24, 256), (100, 36), (128, 128), (256, 192)]
GATED = [(None, "0"), *((kind, gate) for kind in SHAPES for gate in ("0", "-20", "mixed", "mild"))]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    rows = (2, length, 2)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


def gate_shape(kind: str, x: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", x["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in SHAPES[kind])


def in_float32_but_for_qkv(**x: Tensor) -> tuple[Tensor, Tensor]:
    """As a layer under autocast calls it: gates and states stay float32."""
    wide = {name: x[name].float() for name in ("log_decay", "initial_state") if name in x}
    if x["q"].dtype == FLOAT64:
        wide = {}
    return chunk_decay(**(x | wide))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_bfloat16_agrees(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(200, *dims)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize("dims", [(64, 64), (100, 36)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_float32_agrees(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(130, *dims)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_decay, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


@pytest.mark.parametrize("kind", [None, *SHAPES])
@pytest.mark.parametrize("length", [2, 63, 65, 1000])
def test_any_length_agrees(
    length: int,
    kind: str | None,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(length, 64, 64)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert all(error < 1e-2 for error in errors.values()), errors


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("gate", ["mixed", "mild"])
def test_segments_of_one_sequence_agree(
    gate: str,
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    """Few sequences are cut into segments, whose states are joined."""
    x = random_inputs(600, 64, 64)
    x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_decay, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


@pytest.mark.parametrize("kind", ["scalar", "channel"])
def test_bonus_normaliser_and_grouped_values_agree(
    kind: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(130, 32, 32)
    x["v"], x["initial_state"] = torch.randn(2, 130, 6, 32, dtype=FLOAT64), torch.rand(2, 6, 32, 33)
    x["q"], x["k"] = x["q"].abs() + 0.1, x["k"].abs() + 0.1
    x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    x["bonus"] = torch.rand(6, 32, dtype=FLOAT64)
    errors = errors_against_naive(chunk_decay, x, device="cuda", form="triton", normalise=True)
    assert all(error < 1e-4 for error in errors.values()), errors


def cuda_inputs(kind: str | None, *, heads: int = 2, length: int = 130) -> dict[str, Tensor]:
    rows = (2, length, heads)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    if kind is not None:
        shapes = {"scalar": rows, "channel": (*rows, 64)}
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    return x


def step(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = [t for t in x.values() if t.requires_grad]
    o, state = chunk_decay(**x, form="triton")
    loss = o.float().square().sum() + state.square().sum()
    return o.detach(), *torch.autograd.grad(loss, leaves)


def test_a_constant_decay_is_its_value_at_every_token() -> None:
    """Its gradient sums gradients that cancel: too ill-conditioned to compare with the loop's."""
    x, g = cuda_inputs(None), -torch.rand(2, device="cuda")
    constant = step({n: t.clone().requires_grad_() for n, t in (x | {"log_decay": g}).items()})
    per_token = g.expand(2, 130, 2).contiguous()
    scalar = step(
        {n: t.clone().requires_grad_() for n, t in (x | {"log_decay": per_token}).items()}
    )
    for a, b in zip(constant[:-1], scalar[:-1], strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(constant[-1], scalar[-1].sum((0, 1)))


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
        o, state = chunk_decay(**x, form="triton")
        return o.float().square().sum() + state.square().sum()

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2


@pytest.mark.parametrize("name", ["linear_attention", "retnet", "mamba2", "gla", "hgrn2"])
def test_baselines_run_on_triton_under_autocast(
    name: str, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    """The same layer, forward and backward, on the chunked form and on Triton's."""
    torch.manual_seed(0)
    mixer = importlib.import_module(f"linearch.search_space.library.{name}").Mixer(128, 2, 0, 2)
    mixer.cuda()
    x = torch.randn(2, 130, 128, device="cuda")

    def results() -> list[Tensor]:
        mixer.zero_grad()
        with torch.autocast("cuda", dtype=BFLOAT16):
            y, _ = mixer(x)
        y.float().square().sum().backward()
        grads = [p.grad.flatten() for p in mixer.parameters() if p.grad is not None]
        return [y.detach().clone(), torch.cat(grads)]

    with force_form("chunked"):
        wanted = results()
    with force_form("triton"):
        got = results()
    assert not torch.equal(got[0], wanted[0])
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 2e-2


@pytest.mark.parametrize("kind", SHAPES)
def test_what_comes_after_does_not_change_how_a_token_rounds(
    kind: str, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = cuda_inputs(kind)
    other = {name: t.clone() for name, t in x.items()}
    for name, t in cuda_inputs(kind).items():
        other[name][:, 20:] = t[:, 20:]
    before, after = (chunk_decay(**given, form="triton")[0][:, :20] for given in (x, other))
    assert relative_error(before, after) < 1e-4  # 2e-3 where rounding does change


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
        o, _ = chunk_decay(*x, form="triton")
        grads = torch.autograd.grad(o, x, o.detach())
        return tuple(t[:, :, -1].clone() for t in (o.detach(), *grads))

    for a, b in zip(run(slice(None)), run(slice(127, 128)), strict=True):
        assert relative_error(a, b) < 5e-3  # one head alone is summed in another order
