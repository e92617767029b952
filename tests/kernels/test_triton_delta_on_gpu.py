"""On an NVIDIA GPU chunk_delta's Triton form agrees with the float64 loop, also inside graphs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.kernels import chunk_delta
from linearch.kernels.forms import force_form

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

Both = Callable[..., Iterator[tuple[Tensor, Tensor]]]

FLOAT64, BFLOAT16 = torch.float64, torch.bfloat16
SHAPES = {"scalar": "BTH", "channel": "BTHK"}
DIMS = [(16, 16), (32, 24), (64, 64), (100, 36), (128, 128), (256, 192)]
GATED = [(None, "0"), *((kind, gate) for kind in SHAPES for gate in ("0", "-20", "mixed", "mild"))]


def random_inputs(
    length: int,
    key_dim: int,
    value_dim: int,
    *,
    steps: int = 1,
    erase_key: bool = False,
    strongest: float = 2.0,
) -> dict[str, Tensor]:
    rows = (2, steps * length, 2)
    x = {
        "q": torch.randn(2, length, 2, key_dim, dtype=FLOAT64),
        "k": F.normalize(torch.randn(*rows, key_dim, dtype=FLOAT64), dim=-1),
        "v": torch.randn(*rows, value_dim, dtype=FLOAT64),
        "beta": strongest * torch.rand(*rows, dtype=FLOAT64),
        "initial_state": torch.randn(2, 2, key_dim, value_dim, dtype=FLOAT64),
    }
    if erase_key:
        near = x["k"] + 0.1 * torch.randn(*rows, key_dim, dtype=FLOAT64)
        x["erase_key"] = F.normalize(near, dim=-1)
    return x


def gate_shape(kind: str, x: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = dict(zip("BTHK", x["q"].shape, strict=True))
    return tuple(sizes[axis] for axis in SHAPES[kind])


def in_float32_but_for_qkv(**x: Any) -> tuple[Tensor, Tensor]:
    """As a layer under autocast calls it: gates, strengths and states stay float32."""
    if x["q"].dtype != FLOAT64:
        wide = ("beta", "write_strength", "log_decay", "initial_state")
        x |= {name: x[name].float() for name in wide if name in x}
    return chunk_delta(**x)


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
    x = random_inputs(130, *dims, erase_key=dims[0] == 100)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


@pytest.mark.parametrize("kind", [None, *SHAPES])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
def test_any_length_and_erase_key_agrees(
    length: int,
    kind: str | None,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    """Strengths up to 1: up to 2 with no decay, bfloat16's roundings add up over 1000 tokens."""
    x = random_inputs(length, 64, 64, erase_key=True, strongest=1.0)
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *gate_shape(kind, x))
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize("dims", [(32, 24), (64, 64), (128, 128)])
@pytest.mark.parametrize(("steps", "erase_key"), [(2, True), (3, False)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_several_steps_a_token_agree(
    dims: tuple[int, int],
    steps: int,
    erase_key: bool,
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    """At -20 alone, a gate's gradient is 1e-9 of what the steps of one token give each other."""
    x = random_inputs(67, *dims, steps=steps, erase_key=erase_key, strongest=1.0)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


@pytest.mark.parametrize(
    ("kind", "gate"), [(None, "0"), ("scalar", "-20"), ("channel", "-20"), ("channel", "mixed")]
)
def test_two_steps_a_token_agree_in_float32(
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs(67, 64, 64, steps=2, erase_key=True)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(chunk_delta, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


@pytest.mark.parametrize("dims", [(32, 24), (64, 64), (128, 128)])
@pytest.mark.parametrize(("kind", "gate"), GATED)
def test_strengths_of_channels_and_grouped_values_agree(
    dims: tuple[int, int],
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    """Strengths up to 1: they are rounded with the key and the value they weigh."""
    x = random_inputs(200, *dims)
    x["beta"] = torch.rand_like(x["k"])
    x["v"] = torch.randn(2, 200, 4, dims[1], dtype=FLOAT64)
    x["write_strength"] = torch.rand_like(x["v"])
    x["initial_state"] = torch.randn(2, 4, *dims, dtype=FLOAT64)
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *gate_shape(kind, x))
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    for name, error in errors.items():
        assert error < (5e-3 if name.startswith("output") else 1e-2), errors


def test_keys_far_from_unit_length_do_not_overflow(
    errors_against_naive: Callable[..., dict[str, float]],
) -> None:
    x = random_inputs(130, 64, 64)
    x["k"], x["beta"] = 1000 * x["k"], 1e-6 * x["beta"]
    errors = errors_against_naive(
        in_float32_but_for_qkv, x, dtype=BFLOAT16, device="cuda", form="triton"
    )
    assert all(error < 1e-2 for error in errors.values()), errors


def cuda_inputs(kind: str | None) -> dict[str, Tensor]:
    rows = (2, 130, 2)
    x = {name: torch.randn(*rows, 64, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    x["k"] = F.normalize(x["k"], dim=-1)
    x["beta"] = torch.rand(rows, device="cuda")
    if kind is not None:
        shapes = {"scalar": rows, "channel": (*rows, 64)}
        x["log_decay"] = -0.3 * torch.rand(shapes[kind], device="cuda")
    return x


def step(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = [t for t in x.values() if t.requires_grad]
    o, state = chunk_delta(**x, form="triton")
    loss = o.float().square().sum() + state.square().sum()
    return o.detach(), *torch.autograd.grad(loss, leaves)


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
    before, after = (chunk_delta(**given, form="triton")[0][:, :20] for given in (x, other))
    assert relative_error(before, after) < 1e-4  # 2e-3 where rounding does change


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
        o, state = chunk_delta(**x, form="triton")
        return o.float().square().sum() + state.square().sum()

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda"])
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
