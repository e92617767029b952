"""What every Triton form is asked on an NVIDIA GPU: agreement with the loop, and training steps.

An operation is called with its arguments by name and with form="triton".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from comparing import Operation, Tensors, errors_against_naive, log_decay_of, relative_error
from torch import Tensor
from torch.utils import deterministic

from linearch.kernels.forms import force_form

BFLOAT16 = torch.bfloat16
KINDS = ("scalar", "channel")  # of gates: one for all channels of a token, or each its own
GATED = [(None, "0"), *((kind, gate) for kind in KINDS for gate in ("0", "-20", "mixed", "mild"))]
# What a layer under autocast leaves in float32.
WIDE = ("beta", "write_strength", "log_decay", "value_log_decay", "initial_state", "sinks")


def gated(x: Tensors, kind: str | None, gate: str, *, like: str = "q") -> Tensors:
    """x with such gates, for each channel of `like` or one for all of them."""
    if kind is None:
        return x
    shape = x[like].shape if kind == "channel" else x[like].shape[:-1]
    return x | {"log_decay": log_decay_of(gate, *shape)}


def under_autocast(operation: Operation) -> Operation:
    """As a layer under autocast calls it: gates, strengths and states stay float32."""

    def call(**x: Any) -> Any:
        wide = {name: x[name].float() for name in WIDE if name in x and x[name].dtype == BFLOAT16}
        return operation(**(x | wide))

    return call


def assert_agrees_in_bfloat16(
    operation: Operation, x: Tensors, *, bar: float = 5e-3, form: str | None = "triton"
) -> None:
    """Outputs to `bar`, gradients to 1e-2."""
    errors = errors_against_naive(
        under_autocast(operation), x, dtype=BFLOAT16, device="cuda", form=form
    )
    for name, error in errors.items():
        assert error < (bar if name.startswith("output") else 1e-2), errors


def assert_agrees_in_float32(operation: Operation, x: Tensors) -> None:
    errors = errors_against_naive(operation, x, device="cuda", form="triton")
    assert all(error < 1e-4 for error in errors.values()), errors


def step(operation: Operation, x: Tensors) -> tuple[Tensor, ...]:
    """A training step: outputs, then the gradients of what requires one."""
    outputs = _outputs(operation, x)
    leaves = [t for t in x.values() if t.requires_grad]
    gradients = torch.autograd.grad(_sum_of_squares(outputs), leaves)
    return (*(t.detach() for t in outputs), *gradients)


def assert_strided_gives_the_same(operation: Operation, x: Tensors, strided: Tensors) -> None:
    """`strided` are some of x in other places of memory."""
    wanted = step(operation, {n: t.clone().requires_grad_() for n, t in x.items()})
    got = step(operation, {n: t.detach().requires_grad_() for n, t in (x | strided).items()})
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def assert_slices_give_the_same(operation: Operation, x: Tensors, names: str = "qkv") -> None:
    """Of one projection, as they are and with the elements of a row apart."""
    packed = torch.cat([x[name] for name in names], dim=2)
    slices = dict(zip(names, packed.chunk(len(names), dim=2), strict=True))
    apart = {name: t.mT.contiguous().mT for name, t in slices.items()}
    assert apart["q"].stride(-1) != 1
    for strided in (slices, apart):
        assert_strided_gives_the_same(operation, x, strided)


def assert_what_comes_after_changes_nothing(
    operation: Operation, x: Tensors, after: Tensors
) -> None:
    """The outputs of 20 tokens, whether those of x or of `after` follow."""
    other = {name: torch.cat([t[:, :20], after[name][:, 20:]], dim=1) for name, t in x.items()}
    one, another = (operation(**given, form="triton")[0][:, :20] for given in (x, other))
    assert relative_error(one, another) < 1e-4  # 2e-3 where rounding does change


def assert_a_graph_gives_the_same(
    run: Callable[[], tuple[Tensor, ...]], **tolerance: float
) -> None:
    """What runs, captured in a CUDA graph and replayed."""
    for captured, alone in _in_a_graph_and_by_itself(run):
        torch.testing.assert_close(captured, alone, **tolerance)


def assert_compiled_gives_the_same(operation: Operation, x: Tensors) -> None:
    """A training step, as one graph of torch.compile."""

    def loss(x: Tensors) -> Tensor:
        return _sum_of_squares(_outputs(operation, x))

    leaves = list(x.values())
    wanted = torch.autograd.grad(loss(x), leaves)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), leaves)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-2


def assert_a_baseline_agrees(name: str, form: Any = "triton") -> None:
    """Its layer under autocast, forward and backward, on the chunked form and on this one."""
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
    with nullcontext() if form is None else force_form(form):
        got = results()
    assert not torch.equal(got[0], wanted[0])
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 2e-2


def assert_heads_beyond_two_to_the_31_elements_agree(operation: Operation) -> None:
    """The last of many heads, with the others and alone."""
    deterministic.fill_uninitialized_memory = False
    rows = (1, 2**17 + 5, 128)
    x = {name: torch.randn(*rows, 128, device="cuda", dtype=BFLOAT16) for name in "qkv"}
    x["log_decay"] = -0.1 * torch.rand(rows, device="cuda")
    assert x["q"].numel() > 2**31

    def run(heads: slice) -> tuple[Tensor, ...]:
        leaves = {name: t[:, :, heads].detach().requires_grad_() for name, t in x.items()}
        o = _outputs(operation, leaves)[0]
        grads = torch.autograd.grad(o, list(leaves.values()), o.detach())
        return tuple(t[:, :, -1].clone() for t in (o.detach(), *grads))

    for a, b in zip(run(slice(None)), run(slice(127, 128)), strict=True):
        assert relative_error(a, b) < 5e-3  # one head alone is summed in another order


def _outputs(operation: Operation, x: Tensors) -> tuple[Tensor, ...]:
    returned = operation(**x, form="triton")
    return returned if isinstance(returned, tuple) else (returned,)


def _sum_of_squares(outputs: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([t.float().square().sum() for t in outputs]).sum()


def _in_a_graph_and_by_itself(
    run: Callable[[], tuple[Tensor, ...]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor as a replayed CUDA graph gives it, and as the run itself does."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        wanted = run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    graph.replay()
    yield from zip(captured, wanted, strict=True)
