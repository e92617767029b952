"""Run with TRITON_INTERPRET=1 by test_triton_interpreted: errors of the layers' forms, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from interpreted import errors_of_triton, print_errors
from torch import Tensor

from linearch.kernels import (
    activation,
    add_bonus,
    add_rms_norm,
    causal_attention,
    gated_product,
    l2_norm,
    linear_cross_entropy,
    rms_norm,
    rotary,
    scaled_heads,
    scan,
    short_convolution,
    swiglu,
    token_shift,
)
from linearch.kernels.normaliser import divided

Case = tuple[Callable[..., Any], dict[str, Tensor], dict[str, Any]]


def cases() -> dict[str, Case]:
    x, gate = torch.randn(2, 3, 7, 20)
    weight, narrow = torch.randn(20), x.mT.contiguous().mT
    hidden, head = torch.randn(9, 6), torch.randn(5000, 6)
    targets = torch.randint(0, 5000, (9,))
    targets[3] = -100
    loss = {"targets": targets, "chunk": 4}
    return (
        {
            "norm": (rms_norm, {"x": x, "weight": weight}, {"eps": 1e-3}),
            "norm of 5000 channels": (rms_norm, {"x": head.T, "weight": torch.randn(5000)}, {}),
            "norm, silu": (rms_norm, {"x": x, "weight": weight, "gate": gate}, {}),
            "norm, sigmoid": (
                rms_norm,
                {"x": narrow, "weight": weight, "gate": gate},
                {"activation": "sigmoid"},
            ),
            "unit length": (l2_norm, {"x": x}, {"eps": 1e-3}),
            "loss": (linear_cross_entropy, {"hidden": hidden, "head": head}, loss),
        }
        | convolution_cases()
        | gating_cases()
        | activation_cases()
        | residual_cases()
        | token_shift_cases()
        | bonus_cases()
        | rotary_cases()
        | normaliser_cases()
        | strength_cases()
        | scan_cases()
        | attention_cases()
    )


def convolution_cases() -> dict[str, Case]:
    """Runs are of 16 tokens, blocks of 64 channels or as wide as a head."""

    def inputs(length: int, width: int = 4, channels: int = 72) -> dict[str, Tensor]:
        return {
            "x": torch.randn(2, length, channels),
            "weight": torch.randn(channels, width),
            "bias": torch.randn(channels),
            "initial_state": torch.randn(2, width - 1, channels),
        }

    silu = {"activation": "silu"}
    bare = {name: inputs(35)[name] for name in ("x", "weight")}
    wide = inputs(35, channels=300)
    parts = {"x": torch.randn(2, 35, 75), "weight": torch.randn(72, 4)}
    return {
        "convolution": (short_convolution, bare, {}),
        "convolution, one token": (short_convolution, inputs(1), silu),
        "convolution, 3 tokens": (short_convolution, inputs(3), silu),
        "convolution, 63 tokens": (short_convolution, inputs(63, channels=9), silu),
        "convolution, 65 tokens": (short_convolution, inputs(65, channels=9), silu),
        "convolution, one tap": (short_convolution, inputs(35, width=1), silu),
        "convolution, two taps": (short_convolution, inputs(35, width=2), silu),
        "convolution, 8 taps": (short_convolution, inputs(35, width=8), silu),
        "convolution, 8 taps, 3 tokens": (short_convolution, inputs(3, width=8), silu),
        "convolution of a slice": (convolution_of_a_slice, parts, silu),
        "convolution, heads": (short_convolution, inputs(35), silu | heads(64, 16)),
        "convolution, all heads, no silu": (short_convolution, inputs(35), heads(72, 8)),
        "convolution, a wide head": (short_convolution, wide, silu | heads(256, 128)),
        "convolution, widest head": (short_convolution, wide, silu | heads(256, 256)),
        "convolution, heads of 12": (short_convolution, inputs(19), silu | heads(24, 12)),
        "convolution, heads, one token": (short_convolution, inputs(1), silu | heads(64, 16)),
    }


def heads(n_channels: int, head_dim: int) -> dict[str, Any]:
    return {"normalise": n_channels, "head_dim": head_dim, "eps": 1e-2}


def convolution_of_a_slice(x: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Of a projection whose width is odd."""
    return short_convolution(x[..., 1:-2], **inputs)


def gating_cases() -> dict[str, Case]:
    """Blocks are of 8 rows and 256 channels: widths below, beyond and of a block."""

    def pair(*shape: int) -> dict[str, Tensor]:
        return dict(zip(("x", "gate"), torch.randn(2, *shape), strict=True))

    apart = {name: x.mT.contiguous().mT for name, x in pair(3, 5, 20).items()}
    sigmoid = {"activation": "sigmoid"}
    return {
        "product": (gated_product, pair(3, 5, 20), {}),
        "product, heads": (gated_product, pair(2, 3, 5, 20), sigmoid),
        "product, channels apart": (gated_product, apart, {}),
        "product of slices": (product_of_slices, {"packed": torch.randn(3, 5, 40)}, sigmoid),
        "product, two blocks": (gated_product, pair(9, 300), {}),
        "product, one row": (gated_product, pair(256), {}),
        "product, skip": (gated_product, with_skip(pair(3, 5, 20), 20), {}),
        "product, skip of heads": (gated_product, with_skip(pair(2, 30, 3, 100), 3, 1), sigmoid),
        "product, skip of all": (gated_product, with_skip(pair(20)), {}),
        "product of slices, skip": (skip_of_a_slice, with_skip(pair(9, 300), 300), {}),
        "swiglu": (swiglu, {"gate_up": torch.randn(3, 5, 14)}, {}),
        "swiglu, two blocks": (swiglu, {"gate_up": torch.randn(9, 600)}, {}),
        "swiglu, channels apart": (swiglu, {"gate_up": torch.randn(14, 9).T}, {}),
    }


def with_skip(pair: dict[str, Tensor], *rate: int) -> dict[str, Tensor]:
    return pair | {"skip": torch.randn(pair["x"].shape), "skip_rate": torch.randn(rate)}


def skip_of_a_slice(skip: Tensor, **inputs: Any) -> Tensor:
    wider = torch.cat((skip, skip), dim=-1)
    return gated_product(skip=wider[..., : skip.shape[-1]], **inputs)


def product_of_slices(packed: Tensor, **options: Any) -> Tensor:
    return gated_product(packed[..., 20:], packed[..., :20], **options)


def activation_cases() -> dict[str, Case]:
    """Tiles are of 16, 64 and 256 channels; the steepest parts of each function are in x."""
    x, bias, rate = 4 * torch.randn(3, 50, 20), torch.randn(20), torch.randn(20)
    gates = {"x": 4 * torch.randn(2, 70, 3), "bias": torch.randn(3), "rate": torch.randn(3)}
    heads = {"x": torch.randn(2, 9, 3, 100), "bias": torch.randn(3, 100), "rate": torch.randn(3, 1)}
    bounded = {"function": "log_sigmoid", "floor": 0.2}
    return {
        "activation, elu_plus_one": (activation, {"x": x}, {"function": "elu_plus_one"}),
        "activation, exp": (activation, {"x": x, "bias": bias}, {"function": "exp", "rate": -0.5}),
        "activation, log_sigmoid": (
            activation,
            {"x": x, "rate": rate},
            {"function": "log_sigmoid"},
        ),
        "activation, floor": (activation, {"x": x, "bias": bias, "rate": rate}, bounded),
        "activation, relu": (activation, {"x": x[0, 0]}, {"function": "relu"}),
        "activation, sigmoid": (activation, {"x": x.mT.contiguous().mT}, {"function": "sigmoid"}),
        "activation, silu": (activation, {"x": torch.randn(9, 300)}, {"function": "silu"}),
        "activation, softplus": (activation, gates, {"function": "softplus"}),
        "activation, squared_relu": (activation, heads, {"function": "squared_relu"}),
        "activation of a slice": (activation_of_a_slice, {"packed": x}, {"function": "softplus"}),
    }


def activation_of_a_slice(packed: Tensor, **options: Any) -> Tensor:
    return activation(packed[..., 3:11], **options)


def residual_cases() -> dict[str, Case]:
    x, residual = torch.randn(2, 3, 7, 20)
    weight, eps = torch.randn(20), {"eps": 1e-3}
    plain = {"x": x, "residual": residual, "weight": weight}
    apart = {"x": x.mT.contiguous().mT, "residual": residual[:1].expand(3, 7, 20)}
    return {
        "norm, residual": (add_rms_norm, plain, eps),
        "norm, residual apart": (add_rms_norm, plain | apart, eps),
        "norm alone of a residual": (lambda **x: add_rms_norm(**x)[0], plain, eps),
        "sum alone of a residual": (lambda **x: add_rms_norm(**x)[1], plain, eps),
        "norm, residual of 5000": (
            add_rms_norm,
            dict(zip(plain, (*torch.randn(2, 6, 5000), torch.randn(5000)), strict=True)),
            {},
        ),
    }


def bonus_cases() -> dict[str, Case]:
    """Tiles are of 2,048 elements of one head: of 64 tokens for the widest of 20 channels."""

    def inputs(length: int, width: int, value_width: int) -> dict[str, Tensor]:
        keys, values = (2, length, 3, width), (2, length, 3, value_width)
        shapes = {"o": values, "q": keys, "k": keys, "v": values, "bonus": (3, width)}
        return {name: torch.randn(shape) for name, shape in shapes.items()}

    apart = {name: t.mT.contiguous().mT for name, t in inputs(9, 20, 12).items()}
    return {
        "bonus": (add_bonus, inputs(70, 20, 12), {"scale": 0.3}),
        "bonus, wide values": (add_bonus, inputs(5, 16, 200), {}),
        "bonus, one token": (add_bonus, inputs(1, 16, 16), {}),
        "bonus, channels apart": (add_bonus, apart, {}),
    }


def rotary_cases() -> dict[str, Case]:
    """Tiles are of 8 tokens and 128 pairs of channels."""
    at = {"position": torch.tensor(1000)}
    return {
        "rotary": (rotary, {"x": torch.randn(2, 9, 3, 16)}, at),
        "rotary, two tiles": (rotary, {"x": torch.randn(1, 9, 3, 100)}, at | {"base": 100.0}),
        "rotary of a slice": (rotary_of_a_slice, {"packed": torch.randn(2, 9, 40)}, at),
        "rotary, one token": (rotary, {"x": torch.randn(2, 1, 3, 2)}, at),
    }


def rotary_of_a_slice(packed: Tensor, **options: Any) -> Tensor:
    return rotary(packed[..., 4:36].unflatten(-1, (2, 16)), **options)


def normaliser_cases() -> dict[str, Case]:
    """Tiles are of 64 rows and 32 columns; two divisors are nearer to 0 than may be."""
    o = torch.randn(2, 50, 32)
    o[0, :2, 20] = torch.tensor([0.0, -1e-9])
    options = {"value_dim": 20}
    return {
        "normaliser": (in_a_form(divided), {"o": o}, options),
        "normaliser, columns apart": (in_a_form(divided), {"o": o.mT.contiguous().mT}, options),
    }


def in_a_form(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of what has no naive form."""
    return lambda form, **x: operation(**x, form="triton" if form == "triton" else "chunked")


def strength_cases() -> dict[str, Case]:
    """Tiles are of 2,048 elements of one head: of 64 tokens for heads of 20."""

    def inputs(heads: int, width: int) -> dict[str, Tensor]:
        return {"x": torch.randn(2, 35, heads, width), "strength": torch.randn(2, 35, 4)}

    apart = {name: t.mT.contiguous().mT for name, t in inputs(2, 20).items()}
    return {
        "strengths": (scaled_heads, inputs(4, 20), {}),
        "strengths, one head": (scaled_heads, inputs(1, 20), {}),
        "strengths, grouped": (scaled_heads, inputs(2, 256), {}),
        "strengths, channels apart": (scaled_heads, apart, {}),
    }


def token_shift_cases() -> dict[str, Case]:
    """Tiles are of 16 rows and 128 channels forward, 64 and 64 backward."""

    def inputs(length: int, width: int, n_blends: int) -> dict[str, Tensor]:
        return {
            "x": torch.randn(2, length, width),
            "shares": torch.randn(n_blends, width),
            "offsets": torch.randn(n_blends, 2, length, width),
            "initial_state": torch.randn(2, 1, width),
        }

    bare = {name: inputs(35, 20, 2)[name] for name in ("x", "shares")}
    apart = {name: t.mT.contiguous().mT for name, t in inputs(9, 20, 2).items()}
    return {
        "token shift": (token_shift_flat, bare, {}),
        "token shift, offsets": (token_shift_flat, inputs(35, 20, 5), {}),
        "token shift, one token": (token_shift_flat, inputs(1, 20, 2), {}),
        "token shift, two tiles": (token_shift_flat, inputs(65, 150, 1), {}),
        "token shift, channels apart": (token_shift_flat, apart, {}),
        "token shift, one blend used": (lambda **x: token_shift(**x)[0][1], bare, {}),
    }


def token_shift_flat(**inputs: Any) -> tuple[Tensor, ...]:
    blends, state = token_shift(**inputs)
    return *blends, state


def scan_cases() -> dict[str, Case]:
    def sequence(length: int, width: int = 5, batch: int = 2) -> dict[str, Tensor]:
        shape = (batch, length, width)
        gates = torch.where(torch.rand(shape) < 0.2, -20.0, -torch.rand(shape))
        return {"x": torch.randn(shape), "log_decay": gates}

    start = {"initial_state": torch.randn(2, 5)}
    apart = {name: t.mT.contiguous().mT for name, t in sequence(9, width=33).items()}
    constant = {"log_decay": -torch.rand(5)}
    long = sequence(1030, batch=1) | {"initial_state": torch.randn(1, 5)}
    return {
        "scan, one token": (scan, sequence(1) | start, {}),
        "scan, 63 tokens": (scan, sequence(63), {}),
        "scan, 65 tokens": (scan, sequence(65) | start, {}),
        "scan, two tiles": (scan, sequence(130, batch=1), {}),
        "scan, channels apart": (scan, apart, {}),
        "scan, constant": (scan, sequence(65) | start | constant, {}),
        "scan, output alone": (lambda **x: scan(**x)[0], sequence(3) | start, {}),
        "scan, state alone": (lambda **x: scan(**x)[1], sequence(3) | start, {}),
        "scan, segments": (scan, long, {}),
    }


def attention_cases() -> dict[str, Case]:
    """Blocks are of 16 tokens: of 70 some are masked at one end of a window, some at the other."""
    q, k = torch.randn(2, 2, 70, 2, 20)
    v, gate = torch.randn(2, 70, 2, 12), -torch.rand(2, 70, 2)
    gate[:, ::5] = -20.0
    plain, sinks = {"q": q, "k": k, "v": v}, torch.randn(2)
    one = {name: x[:, :1] for name, x in plain.items()}
    return {
        "attention": (attention, plain, {}),
        "attention, decay": (attention, plain | {"log_decay": gate}, {}),
        "attention, constant decay": (attention, plain | {"log_decay": gate[0, 1]}, {}),
        "attention, sinks": (attention, plain | {"sinks": sinks}, {"scale": -0.3}),
        "attention, window": (attention, plain, {"window": 35}),
        "attention, one token seen": (attention, plain | {"sinks": sinks}, {"window": 1}),
        "attention, all": (
            attention,
            plain | {"log_decay": gate, "sinks": sinks},
            {"window": 33},
        ),
        "attention, one token": (attention, one | {"log_decay": gate[:, :1]}, {}),
    }


def attention(**inputs: Any) -> Tensor:
    return causal_attention(**inputs)[0]


def errors(
    operation: Callable[..., Any], x: dict[str, Tensor], options: dict[str, Any]
) -> dict[str, float]:
    return errors_of_triton(operation, x, **options)


if __name__ == "__main__":
    torch.manual_seed(0)
    print_errors(errors, cases())
