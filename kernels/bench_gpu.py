"""python -m linearch.kernels.bench_gpu: ms per operation on a GPU, replayed from CUDA graphs.

bfloat16 q, k and v and float32 gates, as a layer under autocast gives them; medians; 65,536 tokens.
The floor is the time of the bytes an operation cannot avoid (each input read once, each output
written once, and for the backward pass each input and output gradient too) at the bandwidth of a
large copy measured in the same run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from . import chunk_decay
from .forms import Form

# [B, T, H, K = V]: the reference, one long sequence, and the width of a search's models.
SHAPES = [(32, 2048, 16, 128), (2, 32768, 16, 128), (32, 2048, 8, 64)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One operation's times at one shape, beside their floors; memory above inputs and outputs."""

    operation: str
    shape: tuple[int, int, int, int]
    forward_ms: float
    forward_floor_ms: float
    both_ms: float
    both_floor_ms: float
    workspace_bytes: int


def measure(form: Form | None, shapes: list[tuple[int, int, int, int]]) -> Iterator[Row]:
    bytes_per_ms = copy_bandwidth()
    for shape in shapes:
        for name, leaves, call in operations(*shape, form):
            o = call()[0].detach()
            grad = torch.randn_like(o)
            forward_bytes = size(*leaves, o)
            forward_ms = graph_ms(partial(without_grad, call))
            step = partial(with_grad, call, leaves, grad)
            yield Row(
                operation=name,
                shape=shape,
                forward_ms=forward_ms,
                forward_floor_ms=forward_bytes / bytes_per_ms,
                both_ms=graph_ms(step),
                both_floor_ms=(forward_bytes + 2 * size(*leaves) + size(grad)) / bytes_per_ms,
                workspace_bytes=peak_bytes(step) - size(*leaves, o),  # gradients and o
            )


def operations(
    batch: int, length: int, heads: int, dim: int, form: Form | None
) -> Iterator[tuple[str, list[Tensor], Callable[[], Any]]]:
    """Name, leaves and call of each operation on fresh random inputs."""
    rows = (batch, length, heads)
    q, k, v = (
        torch.randn(*rows, dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    call = partial(chunk_decay, q, k, v, form=form)
    yield "decay none", [q, k, v], call
    gates = {"constant": (heads,), "scalar": rows, "channel": (*rows, dim)}
    for kind, gate_shape in gates.items():
        g = (-0.1 * torch.rand(gate_shape, device="cuda")).requires_grad_()
        yield f"decay {kind}", [q, k, v, g], partial(call, g)


def without_grad(call: Callable[[], Any]) -> None:
    with torch.no_grad():
        call()


def with_grad(call: Callable[[], Any], leaves: list[Tensor], grad: Tensor) -> None:
    torch.autograd.grad(call()[0], leaves, grad)


def graph_ms(run: Callable[[], None]) -> float:
    """The median over replays of a graph of several runs."""
    from triton.testing import do_bench_cudagraph  # on a GPU alone

    with torch.cuda.stream(torch.cuda.Stream()):
        run()
        torch.cuda.synchronize()
        median: float = do_bench_cudagraph(run, rep=50, return_mode="median")
    return median


def peak_bytes(run: Callable[[], None]) -> int:
    """What a run needs at its peak, gradients among it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def copy_bandwidth() -> float:
    """Bytes a ms, read and written, of a copy of 4 GiB."""
    x = torch.randn(2**30, device="cuda")
    y = torch.empty_like(x)

    def copy() -> None:
        y.copy_(x)

    return 2 * size(x) / graph_ms(copy)


def size(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m linearch.kernels.bench_gpu")
    parser.add_argument("--form", choices=get_args(Form), help="default: what a call takes itself")
    parser.add_argument("--shape", help="B,T,H,K; default: three shapes")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shapes = SHAPES
    if arguments.shape:
        batch, length, heads, dim = (int(n) for n in arguments.shape.split(","))
        shapes = [(batch, length, heads, dim)]
    if not arguments.json:
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
        print(f"{'operation':16} {'shape':>18} {'fwd ms':>8} x floor {'+ bwd ms':>9} x floor  MiB")
    for row in measure(arguments.form, shapes):
        if arguments.json:
            print(json.dumps(asdict(row)), flush=True)
            continue
        forward, both = row.forward_ms / row.forward_floor_ms, row.both_ms / row.both_floor_ms
        print(
            f"{row.operation:16} {row.shape!s:>18} {row.forward_ms:8.3f} {forward:7.1f} "
            f"{row.both_ms:9.3f} {both:7.1f} {row.workspace_bytes / 2**20:5.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
