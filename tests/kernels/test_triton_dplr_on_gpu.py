"""On an NVIDIA GPU chunk_dplr's Triton form agrees with the float64 loop, also inside graphs.

Once these pass, it may come off `UNCHECKED` in kernels/forms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_dplr
from linearch.kernels.forms import force_form
from linearch.search_space.library.rwkv7 import Mixer

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
SHAPES = {"scalar": "BTH", "channel": "BTHK"}
DIMS = [(16, 16), (32, 24), (64, 64), (100, 36), (128, 128), (256, 192)]
GATED = [(None, "0"), *((kind, gate) for kind in SHAPES for gate in ("0", "-20", "mixed", "mild"))]


def random_inputs(length: int, key_dim: int, value_dim: int) -> dict[str, Tensor]:
    """As RWKV-7 has them, but for a part of b that lies across a."""
    rows = (2, length, 2)
    a = F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1)
    across = 0.1 * F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1)
    return {
        "q": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "k": torch.randn(*rows, key_dim, dtype=FLOAT64),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "a": a,
        "b": across - a * torch.rand(*rows, key_dim, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }


def gate_shape(kind: str, x: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", x["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in SHAPES[kind])


def in_float32_but_for_streams(**x: Any) -> tuple[Tensor, Tensor]:
    """As a layer under autocast calls it: gates and states stay float32."""
    if x["q"].dtype != FLOAT64:
        wide = ("log_decay", "initial_state")
        x |= {name: x[name].float() for name in wide if name in x}
    return chunk_dplr(**x)


def agrees_in_bfloat16(errors: dict[str, float]) -> bool:
    return all(e < (5e-3 if name.startswith("output") else 1e-2) for name, e in errors.items())


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
        in_float32_but_for_streams, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert agrees_in_bfloat16(errors), errors


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
    errors = errors_against_naive(chunk_dplr, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


@pytest.mark.parametrize("form", ["triton", None])
@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_any_length_agrees(
    length: int,
    form: str | None,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    """Also in the form that is taken unasked."""
    x = random_inputs(length, 64, 64)
    x["log_decay"] = log_decay_of("mild", *gate_shape("channel", x))
    errors = errors_against_naive(
        in_float32_but_for_streams, x, dtype=BFLOAT16, device="cuda", form=form
    )
    assert agrees_in_bfloat16(errors), errors


def test_a_single_token_agrees(
    errors_against_naive: Callable[..., dict[str, float]], log_decay_of: Callable[..., Tensor]
) -> None:
    x = random_inputs(1, 64, 64)
    x["log_decay"] = log_decay_of("mild", *gate_shape("channel", x))
    errors = errors_against_naive(
        in_float32_but_for_streams, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert agrees_in_bfloat16(errors), errors


def test_keys_far_from_unit_length_do_not_overflow(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    x = random_inputs(130, 64, 64)
    x["a"], x["b"] = 1e6 * x["a"], 1e-6 * x["b"]
    errors = errors_against_naive(
        in_float32_but_for_streams, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert agrees_in_bfloat16(errors), errors


def cuda_inputs() -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkva"}
    x["a"] = F.normalize(x["a"], dim=-1)
    x["b"] = -x["a"] * torch.rand_like(x["a"])
    x["log_decay"] = -0.3 * torch.rand(*rows, 64, device="cuda")
    return x


def step(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = [t for t in x.values() if t.requires_grad]
    o, state = chunk_dplr(**x, form="triton")
    loss = o.float().square().sum() + state.square().sum()
    return o.detach(), *torch.autograd.grad(loss, leaves)


def test_slices_of_one_projection_give_what_copies_give() -> None:
    x = cuda_inputs()
    packed = torch.cat([x[name] for name in "qkvab"], dim=2)
    views = dict(zip("qkvab", packed.chunk(5, dim=2), strict=True))
    apart = {name: t.mT.contiguous().mT for name, t in views.items()}
    assert apart["q"].stride(-1) != 1
    wanted = step({n: t.clone().requires_grad_() for n, t in x.items()})
    for strided in (views, apart):
        got = step({n: t.detach().requires_grad_() for n, t in (x | strided).items()})
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)


def test_what_comes_after_does_not_change_how_a_token_rounds(
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = cuda_inputs()
    other = {name: t.clone() for name, t in x.items()}
    for name, t in cuda_inputs().items():
        other[name][:, 20:] = t[:, 20:]
    before, after = (chunk_dplr(**given, form="triton")[0][:, :20] for given in (x, other))
    assert relative_error(before, after) < 1e-4  # 2e-3 where rounding does change


def test_a_training_step_is_captured_in_a_cuda_graph(in_a_graph_and_by_itself: Both) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs().items()}
    for a, b in in_a_graph_and_by_itself(lambda: step(x)):
        torch.testing.assert_close(a, b)


def test_a_training_step_is_compiled_as_one_graph(
    relative_error: Callable[[Tensor, Tensor], float],
) -> None:
    x = {name: t.requires_grad_() for name, t in cuda_inputs().items()}

    def loss(x: dict[str, Tensor]) -> Tensor:
        o, state = chunk_dplr(**x, form="triton")
        return o.float().square().sum() + state.square().sum()

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2


@pytest.mark.parametrize("form", ["triton", None])
def test_rwkv7_runs_on_triton_under_autocast(
    form: Any, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    """The same layer, forward and backward, on the chunked form and on Triton's or unasked."""
    torch.manual_seed(0)
    mixer = Mixer(128, 2, 0, 2).cuda()
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
    with nullcontext() if form is None else force_form(form):
        got = results()
    assert not torch.equal(got[0], wanted[0])
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 2e-2
