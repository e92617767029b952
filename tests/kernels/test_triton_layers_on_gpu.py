"""On an NVIDIA GPU the Triton forms of the layers around recurrences agree with the formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from on_gpu import BFLOAT16, assert_a_graph_gives_the_same, assert_compiled_gives_the_same
from torch import Tensor

from linearch.kernels import (
    activation,
    add_bonus,
    add_rms_norm,
    gated_product,
    l2_norm,
    linear_cross_entropy,
    rms_norm,
    rotary,
    scaled_heads,
    short_convolution,
    swiglu,
    token_shift,
)
from linearch.kernels.pointwise import Function

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unwritten_memory_is_nan")]

FLOAT32, FLOAT64 = torch.float32, torch.float64
DTYPES = [(FLOAT32, 1e-4), (BFLOAT16, 1e-2)]
Errors = Callable[..., dict[str, float]]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=FLOAT64)


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("width", [16, 100, 128, 2048])
@pytest.mark.parametrize("activation", [None, "silu", "sigmoid"])
def test_norms_agree(
    activation: str | None,
    width: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Errors,
) -> None:
    x = {"x": random(2, 50, 3, width), "weight": random(width)}
    options = {}
    if activation is not None:
        x["gate"], options = random(2, 50, 3, width), {"activation": activation}
    errors = errors_against_naive(rms_norm, x, dtype=dtype, device="cuda", form="triton", **options)
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("width", [16, 100, 128, 2048])
def test_rows_of_unit_length_agree(
    width: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    x = {"x": random(2, 50, 3, width)}
    errors = errors_against_naive(l2_norm, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


def convolution_inputs(length: int, width: int, channels: int) -> dict[str, Tensor]:
    return {
        "x": random(2, length, channels),
        "weight": random(channels, width),
        "bias": random(channels),
        "initial_state": random(2, width - 1, channels),
    }


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("width", [16, 100, 128, 2048])
def test_norms_of_sums_agree(
    width: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    x = {name: random(2, 50, 3, width) for name in ("x", "residual")} | {"weight": random(width)}
    errors = errors_against_naive(add_rms_norm, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize("out_dtype", [None, BFLOAT16])
def test_what_a_block_adds_to_a_float32_stream_is_normalised(
    out_dtype: torch.dtype | None, relative_error: Callable[[Tensor, Tensor], float]
) -> None:
    x = torch.randn(3, 70, 100, device="cuda", dtype=BFLOAT16)
    stream, weight = torch.randn(3, 70, 100, device="cuda"), torch.randn(100, device="cuda")
    leaves = [t.requires_grad_() for t in (x, stream, weight)]
    results = []
    for form in ("triton", "chunked"):
        y, total = add_rms_norm(x, stream, weight, out_dtype=out_dtype, form=form)
        alone = rms_norm(stream, weight, out_dtype=out_dtype, form=form)
        assert (y.dtype, total.dtype, alone.dtype) == (out_dtype or FLOAT32, FLOAT32, y.dtype)
        loss = ((y + 2 * alone).float() * stream.detach().sin()).sum() + total.square().sum()
        results.append([y, total, alone, *torch.autograd.grad(loss, leaves)])
    for got, wanted in zip(*results, strict=True):
        assert got.dtype == wanted.dtype
        assert relative_error(got, wanted) < 1e-2


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("width", [1, 20, 128, 172, 768, 2049])
@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
def test_products_agree(
    activation: str, width: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    def of_slices(packed: Tensor, **options: Any) -> Tensor:
        return gated_product(packed[..., width:], packed[..., :width], **options)

    x = {"x": random(2, 50, 3, width), "gate": random(2, 50, 3, width)}
    skip = {"skip": random(2, 50, 3, width), "skip_rate": random(3, 1)}
    packed, on_gpu = random(2, 50, 2 * width), {"device": "cuda", "form": "triton"}
    for operation, inputs, options in [
        (gated_product, x, {"activation": activation}),
        (gated_product, x | skip, {"activation": activation}),
        (of_slices, {"packed": packed}, {"activation": activation}),
        (swiglu, {"gate_up": packed}, {}),
    ]:
        errors = errors_against_naive(operation, inputs, dtype=dtype, **on_gpu, **options)
        assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 65, 1000])
@pytest.mark.parametrize(("heads", "width"), [(1, 32), (2, 20), (4, 256)])
def test_strengths_agree(
    heads: int,
    width: int,
    length: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Errors,
) -> None:
    x = {"x": random(2, length, heads, width), "strength": random(2, length, 4)}
    errors = errors_against_naive(scaled_heads, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 65, 1000])
@pytest.mark.parametrize("head_dim", [16, 20, 128])
def test_rotations_agree(
    head_dim: int, length: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    def of_a_slice(packed: Tensor, form: Any) -> Tensor:
        x = packed[..., 8:].unflatten(-1, (4, head_dim))
        return rotary(x, torch.tensor(1000, device=x.device), form=form)

    x = {"packed": random(2, length, 4 * head_dim + 8)}
    errors = errors_against_naive(of_a_slice, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 65, 1000])
@pytest.mark.parametrize("dims", [(32, 32), (20, 12), (64, 128), (256, 256)])
def test_bonuses_agree(
    dims: tuple[int, int], length: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    (K, V), rows = dims, (2, length, 3)
    shapes = {"o": (*rows, V), "q": (*rows, K), "k": (*rows, K), "v": (*rows, V), "bonus": (3, K)}
    x = {name: random(*shape) for name, shape in shapes.items()}
    errors = errors_against_naive(add_bonus, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 65, 1000])
@pytest.mark.parametrize("width", [20, 128, 256])
@pytest.mark.parametrize("n_blends", [1, 6])
def test_token_shifts_agree(
    n_blends: int,
    width: int,
    length: int,
    dtype: torch.dtype,
    bar: float,
    errors_against_naive: Errors,
) -> None:
    def blends_and_state(**inputs: Any) -> tuple[Tensor, ...]:
        blends, state = token_shift(**inputs)
        return *blends, state

    plain = {"x": random(3, length, width), "shares": random(n_blends, width)}
    moved = plain | {
        "offsets": random(n_blends, 3, length, width),
        "initial_state": random(3, 1, width),
    }
    for x in (plain, moved):
        errors = errors_against_naive(
            blends_and_state, x, dtype=dtype, device="cuda", form="triton"
        )
        assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("width", [1, 4, 20, 128, 1030])
@pytest.mark.parametrize("function", get_args(Function))
def test_activations_agree(
    function: str, width: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    def of_a_slice(packed: Tensor, **options: Any) -> Tensor:
        return activation(packed[..., 1:], function, **options)

    floor = 0.3 if function == "log_sigmoid" and width > 20 else 0.0
    heads = {"x": 3 * random(2, 50, 3, width), "bias": random(width), "rate": random(3, 1)}
    options = {"device": "cuda", "form": "triton", "floor": floor, "out_dtype": FLOAT32}
    errors = errors_against_naive(activation, heads, dtype=dtype, function=function, **options)
    packed = {"packed": 3 * random(2, 50, width + 1), "bias": random(width)}
    errors |= {
        f"slice {name}": error
        for name, error in errors_against_naive(of_a_slice, packed, dtype=dtype, **options).items()
    }
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 3, 63, 65, 1000])
@pytest.mark.parametrize("width", [1, 4, 8])
def test_convolutions_agree(
    width: int, length: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    x = convolution_inputs(length, width, channels=200)
    errors = errors_against_naive(
        short_convolution, x, dtype=dtype, device="cuda", form="triton", activation="silu"
    )
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("others", [8, 10, 7])
def test_convolutions_of_a_projections_slice_agree(
    others: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    """Its tokens are apart by a multiple of 8 elements, of 2 and of 1."""

    def of_a_slice(x: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
        return short_convolution(x[..., :200], activation="silu", **inputs)

    x = convolution_inputs(100, width=4, channels=200)
    x["x"] = random(2, 100, 200 + others)
    errors = errors_against_naive(of_a_slice, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("length", [1, 65, 1000])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
def test_convolutions_with_heads_of_unit_length_agree(
    head_dim: int, length: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    x = convolution_inputs(length, width=4, channels=2 * head_dim + 72)
    heads = {"normalise": 2 * head_dim, "head_dim": head_dim}
    errors = errors_against_naive(
        short_convolution, x, dtype=dtype, device="cuda", form="triton", activation="silu", **heads
    )
    assert max(errors.values()) < bar, errors


def test_a_convolution_gives_the_same_bits_each_time() -> None:
    x = torch.randn(8, 500, 640, device="cuda", dtype=BFLOAT16, requires_grad=True)
    weight = torch.randn(640, 4, device="cuda", requires_grad=True)

    def once() -> tuple[Tensor, ...]:
        y, _ = short_convolution(x, weight, normalise=256, head_dim=64, form="triton")
        return y, *torch.autograd.grad(y.float().square().sum(), (x, weight))

    wanted = once()
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(once(), wanted, strict=True))


@pytest.mark.parametrize(("dtype", "bar"), DTYPES)
@pytest.mark.parametrize("vocabulary", [11, 300, 9000, 17001])
def test_losses_agree(
    vocabulary: int, dtype: torch.dtype, bar: float, errors_against_naive: Errors
) -> None:
    targets = torch.randint(0, vocabulary, (50,))
    targets[::7] = -100

    def loss(**inputs: Any) -> Tensor:
        on_device = targets.to(inputs["hidden"].device)
        return linear_cross_entropy(**inputs, targets=on_device, chunk=16)

    # Logits of about 1, as a model's: larger ones lose more to bfloat16 than to any form.
    x = {"hidden": random(50, 64), "head": random(vocabulary, 64) / 8}
    errors = errors_against_naive(loss, x, dtype=dtype, device="cuda", form="triton")
    assert max(errors.values()) < bar, errors


def layers(x: dict[str, Tensor], targets: Tensor) -> Tensor:
    y, _ = short_convolution(x["x"], x["taps"], activation="silu", form="triton")
    y = rms_norm(y, x["weight"], gate=x["gate"], form="triton")
    y, total = add_rms_norm(y, x["stream"], x["weight"], out_dtype=BFLOAT16, form="triton")
    y = swiglu(torch.cat([y, gated_product(y, total, form="triton")], -1), form="triton")
    return linear_cross_entropy(y.flatten(0, 1), x["head"], targets, chunk=64, form="triton")


def layer_inputs() -> tuple[dict[str, Tensor], Tensor]:
    x = {
        "x": torch.randn(2, 65, 128, device="cuda", dtype=BFLOAT16),
        "gate": torch.randn(2, 65, 128, device="cuda", dtype=BFLOAT16),
        "stream": torch.randn(2, 65, 128, device="cuda"),
        "taps": torch.randn(128, 4, device="cuda"),
        "weight": torch.randn(128, device="cuda"),
        "head": torch.randn(300, 128, device="cuda", dtype=BFLOAT16),
    }
    targets = torch.randint(0, 300, (130,), device="cuda")
    return {name: t.requires_grad_() for name, t in x.items()}, targets


def test_a_training_step_is_captured_in_a_cuda_graph() -> None:
    x, targets = layer_inputs()

    def step() -> tuple[Tensor, ...]:
        loss = layers(x, targets)
        return loss.detach(), *torch.autograd.grad(loss, list(x.values()))

    assert_a_graph_gives_the_same(step)


def between_projections(x: Tensor, rates: Tensor, form: Any) -> Tensor:
    """Most of what mixers do to a sequence beside a recurrence and a convolution."""
    (first, second), _ = token_shift(x, rates[:2], form=form)
    q, k = (t.unflatten(-1, (4, 32)) for t in (first, second))
    offset = torch.full((), 3, device=x.device)  # `tensor` would copy it there, which no graph can
    q, k = rotary(q, offset, form=form), l2_norm(k, form=form)
    k = scaled_heads(k[:, :, :1], k[..., 0].float(), form=form)
    o, per_channel = add_bonus(q, q, k, q, rates[2].view(4, 32), form=form), rates[3].view(4, 32)
    return gated_product(o, k, skip=q, skip_rate=per_channel, form=form)


def test_what_is_between_projections_is_captured_in_a_cuda_graph() -> None:
    x = torch.randn(2, 65, 128, device="cuda", dtype=BFLOAT16, requires_grad=True)
    rates = torch.rand(4, 128, device="cuda", requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        y = between_projections(x, rates, "triton")
        return y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, rates))

    assert_a_graph_gives_the_same(step)


def test_what_is_between_projections_is_compiled_as_one_graph() -> None:
    x = torch.randn(2, 65, 128, device="cuda", dtype=BFLOAT16, requires_grad=True)
    rates = torch.rand(4, 128, device="cuda", requires_grad=True)
    assert_compiled_gives_the_same(between_projections, {"x": x, "rates": rates})


def test_the_layers_are_compiled_as_one_graph() -> None:
    x, _ = layer_inputs()
    del x["head"]

    def normed(
        x: Tensor, gate: Tensor, stream: Tensor, taps: Tensor, weight: Tensor, form: Any
    ) -> tuple[Tensor, Tensor]:
        heads = {"normalise": 64, "head_dim": 32}
        y, _ = short_convolution(x, taps, activation="silu", **heads, form=form)
        y = rms_norm(y, weight, gate=gate, form=form)
        y, total = add_rms_norm(y, stream, weight, out_dtype=BFLOAT16, form=form)
        return gated_product(swiglu(y, form=form), total[..., :64], form=form), total

    assert_compiled_gives_the_same(normed, x)
