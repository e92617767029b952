"""On an NVIDIA GPU the chunked forms agree with the float64 loops on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from on_gpu import assert_a_graph_gives_the_same
from torch import Tensor

from linearch import kernels
from linearch.kernels import packing

pytestmark = pytest.mark.gpu

FLOAT64 = torch.float64
GATES = {None: (), "scalar": (2, 130, 2), "channel": (2, 130, 2, 16)}


def random_inputs() -> dict[str, Tensor]:
    rows = (2, 130, 2)
    return {
        "q": torch.randn(*rows, 16, dtype=FLOAT64),
        "k": F.normalize(torch.randn(*rows, 16, dtype=FLOAT64), dim=-1),
        "v": F.normalize(torch.randn(*rows, 24, dtype=FLOAT64), dim=-1),
        "initial_state": torch.randn(2, 2, 16, 24, dtype=FLOAT64),
    }


@pytest.mark.parametrize("operation", [kernels.chunk_decay, kernels.chunk_delta, kernels.chunk_oja])
@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("gate", ["0", "-20", "mixed", "mild"])
def test_recurrences_agree(
    operation: Callable[..., Any],
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs()
    if operation is not kernels.chunk_decay:
        x["beta"] = 2 * torch.rand(2, 130, 2, dtype=FLOAT64)
    if kind is not None:
        shape = GATES[kind] if operation is not kernels.chunk_oja else (*GATES[kind][:3], 24)
        x["log_decay"] = log_decay_of(gate, *shape[: len(GATES[kind])])
    errors = errors_against_naive(operation, x, device="cuda")
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("gate", ["-20", "mixed", "mild"])
def test_the_recurrence_of_two_streams_agrees(
    kind: str | None,
    gate: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
) -> None:
    x = random_inputs()
    x["a"] = F.normalize(torch.randn(2, 130, 2, 16, dtype=FLOAT64), dim=-1)
    x["b"] = -torch.rand(2, 130, 2, 16, dtype=FLOAT64) * x["a"]
    if kind is not None:
        x["log_decay"] = log_decay_of(gate, *GATES[kind])
    errors = errors_against_naive(kernels.chunk_dplr, x, device="cuda")
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("window", [None, 40])
def test_attention_agrees(
    window: int | None, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    x = random_inputs()
    del x["initial_state"]

    def attend(**inputs: Any) -> Tensor:
        return kernels.causal_attention(**inputs, window=window)[0]

    errors = errors_against_naive(attend, x, device="cuda")
    assert max(errors.values()) < 1e-4, errors


def test_bonuses_agree(errors_against_naive: Callable[..., dict[str, float]]) -> None:
    o, q, k, v = torch.randn(4, 2, 65, 2, 16, dtype=FLOAT64)
    inputs = {"o": o, "q": q, "k": k, "v": v, "bonus": torch.randn(2, 16, dtype=FLOAT64)}
    errors = errors_against_naive(kernels.add_bonus, inputs, device="cuda")
    assert max(errors.values()) < 1e-4, errors


def test_strengths_agree(errors_against_naive: Callable[..., dict[str, float]]) -> None:
    x, strength = torch.randn(2, 65, 2, 16, dtype=FLOAT64), torch.randn(2, 65, 6, dtype=FLOAT64)
    errors = errors_against_naive(
        kernels.scaled_heads, {"x": x, "strength": strength}, device="cuda"
    )
    assert max(errors.values()) < 1e-4, errors


def test_rotations_agree(errors_against_naive: Callable[..., dict[str, float]]) -> None:
    def turned(x: Tensor, form: str) -> Tensor:
        return kernels.rotary(x, torch.tensor(1000, device=x.device), form=form)

    inputs = {"x": torch.randn(2, 65, 2, 16, dtype=FLOAT64)}
    errors = errors_against_naive(turned, inputs, device="cuda")
    assert max(errors.values()) < 1e-4, errors


def test_elementwise_operations_agree(
    errors_against_naive: Callable[..., dict[str, float]], log_decay_of: Callable[..., Tensor]
) -> None:
    x, gate = torch.randn(2, 2, 65, 6, dtype=FLOAT64)
    decay, weight = log_decay_of("mixed", 2, 65, 6), torch.randn(6, dtype=FLOAT64)
    taps = torch.randn(6, 4, dtype=FLOAT64)
    for operation, inputs in [
        (kernels.scan, {"x": x, "log_decay": decay}),
        (kernels.short_convolution, {"x": x, "weight": taps, "bias": weight}),
        (kernels.rms_norm, {"x": x, "weight": weight, "gate": gate}),
        (kernels.l2_norm, {"x": x}),
        (kernels.add_rms_norm, {"x": x, "residual": gate, "weight": weight}),
        (kernels.gated_product, {"x": x, "gate": gate}),
        (kernels.gated_product, {"x": x, "gate": gate, "skip": decay, "skip_rate": weight}),
        (kernels.swiglu, {"gate_up": x}),
        (lambda **x: kernels.token_shift(**x)[0][1], {"x": x, "shares": decay[0, :2]}),
        (partial(kernels.activation, function="softplus"), {"x": x, "bias": weight}),
    ]:
        errors = errors_against_naive(operation, inputs, device="cuda")
        assert max(errors.values()) < 1e-4, errors


def test_the_loss_agrees(errors_against_naive: Callable[..., dict[str, float]]) -> None:
    targets = torch.randint(0, 11, (50,))

    def loss(**inputs: Any) -> Tensor:
        on_device = targets.to(inputs["hidden"].device)
        return kernels.linear_cross_entropy(**inputs, targets=on_device, chunk=16)

    inputs = {
        "hidden": torch.randn(50, 6, dtype=FLOAT64),
        "head": torch.randn(11, 6, dtype=FLOAT64),
    }
    errors = errors_against_naive(loss, inputs, device="cuda")
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("kind", GATES)
def test_a_training_step_under_autocast_is_captured_in_a_cuda_graph(
    kind: str | None, log_decay_of: Callable[..., Tensor]
) -> None:
    x = {name: t.float().cuda().requires_grad_() for name, t in random_inputs().items()}
    x["beta"] = torch.rand(2, 130, 2, device="cuda").requires_grad_()
    if kind is not None:
        x["log_decay"] = log_decay_of("mild", *GATES[kind]).float().cuda().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            o, state = kernels.chunk_delta(**x)
        return o.detach(), *torch.autograd.grad(o.sum() + state.sum(), list(x.values()))

    assert_a_graph_gives_the_same(step)


def test_an_argument_on_another_device_is_named() -> None:
    q = torch.zeros(1, 4, 1, 2, device="cuda")
    with pytest.raises(ValueError, match="k is on cpu; wanted cuda:0, where q is"):
        kernels.chunk_decay(q, q.cpu(), q)


@pytest.mark.parametrize("bounds_on", ["cpu", "cuda"])
@pytest.mark.parametrize("form", ["chunked", "triton"])
def test_packed_sequences_agree(
    bounds_on: str, form: str, errors_against_naive: Callable[..., dict[str, float]]
) -> None:
    bounds = torch.tensor([0, 1, 64, 64, 129, 136])

    def convolved(**inputs: Any) -> tuple[Tensor, Tensor]:
        on = bounds_on if inputs["x"].is_cuda else "cpu"
        return kernels.short_convolution(**inputs, cu_seqlens=bounds.to(on))

    inputs = {
        "x": torch.randn(1, 136, 6, dtype=FLOAT64),
        "weight": torch.randn(6, 4, dtype=FLOAT64),
        "initial_state": torch.randn(5, 3, 6, dtype=FLOAT64),
    }
    errors = errors_against_naive(convolved, inputs, device="cuda", form=form)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("form", ["chunked", "triton"])
@pytest.mark.parametrize("operation", [kernels.chunk_decay, kernels.chunk_delta])
@pytest.mark.parametrize("call_numbers", [0, 2**40])  # a batch for each class of lengths, or one
def test_packed_recurrences_of_uneven_lengths_agree(
    call_numbers: int,
    operation: Callable[..., Any],
    form: str,
    errors_against_naive: Callable[..., dict[str, float]],
    log_decay_of: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "_CALL_NUMBERS", call_numbers)
    bounds = torch.tensor([1, 400, 5, 63, 0, 64, 65]).cumsum(0)
    bounds, rows = F.pad(bounds, (1, 0)), (1, int(bounds[-1]), 2)
    x = {name: torch.randn(*rows, 16, dtype=FLOAT64) for name in ("q", "k", "v")}
    x["k"] = F.normalize(x["k"], dim=-1)
    x["initial_state"] = torch.randn(len(bounds) - 1, 2, 16, 16, dtype=FLOAT64)
    x["log_decay"] = log_decay_of("mixed", *rows)
    if operation is kernels.chunk_delta:
        x["beta"] = torch.rand(*rows, dtype=FLOAT64)
    errors = errors_against_naive(operation, x, device="cuda", form=form, cu_seqlens=bounds)
    assert max(errors.values()) < 1e-4, errors


def test_boundaries_on_the_cpu_are_not_waited_for() -> None:
    x = torch.randn(1, 136, 6, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernels.scan(x, -x.square(), cu_seqlens=torch.tensor([0, 1, 64, 64, 136]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
