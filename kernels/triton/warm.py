"""Compiles the static configurations' kernels into Triton's cache, in parallel and with no GPU.

A process that may only read that cache then needs neither a compiler nor ptxas. The operators run
on small CPU tensors with every launch replaced by the compilation it would begin with, for a target
named beforehand: so what is compiled is what they launch, and with the same keys.
"""

from __future__ import annotations

import ctypes.util
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver

from .convolution import has_fused_heads
from .launch_stub import HAS_STUBS, build_launch_stub

Dims = tuple[int, int]  # K, V

DIMS: tuple[Dims, ...] = ((32, 32), (64, 64), (128, 128))
DTYPES = (torch.bfloat16, torch.float32)
WIDTHS = (32, 64, 128, 256, 512, 1024)  # of what is normalised
_LENGTHS = (128, 512)  # one segment, and several
# Product is delta with two steps a token; erase is product with an erase key of its own; columns is
# delta whose value channels decay.
_RECURRENCES = ("decay", "delta", "product", "erase", "columns", "dplr", "oja")
_TWO_STEPS = ("product", "erase")
_GATES = (None, "scalar", "channel")
# By function: whether a bias, whether a rate. A gate is in float32; what has neither, as x too.
_GIVEN = {
    "sigmoid": ((False, False),),
    "log_sigmoid": ((False, False),),
    "softplus": ((False, False), (True, False), (False, True), (True, True)),
    "exp": ((True, False),),
    "elu_plus_one": ((False, False),),
    "squared_relu": ((False, False),),
}
# Operations on heads of K channels: in the dtypes of recurrences or of the layers around them.
_OF_HEADS = {"normaliser": "recurrence", "bonus": "layer", "rotary": "layer", "strengths": "layer"}
# Operation, gates, sizes, each of which stands for all that need the same tile, and length.
_LAYERS: tuple[tuple[str, tuple[str | None, ...], tuple[int, ...], int], ...] = (
    ("norm", (None, "silu", "sigmoid"), (), 128),  # what widths say
    ("residual", (None,), (), 128),
    ("gated product", ("silu", "sigmoid"), (256,), 128),
    ("skip product", ("silu",), (256,), 128),
    ("swiglu", ("silu",), (256,), 128),
    ("token shift", (None, "offsets"), (256,), 128),
    ("activation", tuple(_GIVEN), (4, 128), 128),
    ("convolution", ("silu",), (128,), 128),
    ("loss", (None,), (256, 4096), 128),
    ("scan", ("constant", "channel"), (128,), 1024),  # long enough for segments
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One operation's kernels, forward and backward. dim: K, channels, or words; value_dim: V.

    "unit heads" is a convolution whose heads of K channels get unit length.
    """

    operation: str
    gate: str | None
    dim: int
    value_dim: int
    dtype: torch.dtype
    length: int

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        dims = f"{self.dim}" if self.dim == self.value_dim else f"{self.dim}x{self.value_dim}"
        return f"{self.operation} {self.gate or 'none'}, {dims}, {dtype}, T {self.length}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Warmed:
    """What one case needs in the cache. failure: why it could not be compiled, or None."""

    case: str
    kernels: frozenset[str]  # hashes
    launchers: int  # C stubs that Triton up to 3.6 builds for them
    failure: str | None


def cases(
    dims: Sequence[Dims] = DIMS,
    dtypes: Sequence[torch.dtype] = DTYPES,
    layer_dtypes: Sequence[torch.dtype] = DTYPES,
    widths: Sequence[int] = WIDTHS,
) -> list[Case]:
    """Recurrences, attention and convolutions with heads of `dims`, and the layers around them,
    which normalise rows of `widths`.
    """
    recurrences = [
        Case(operation=operation, gate=gate, dim=k, value_dim=v, dtype=dtype, length=length)
        for operation, (k, v), dtype, gate, length in product(
            _RECURRENCES, dims, dtypes, _GATES, _LENGTHS
        )
        if length == _LENGTHS[0] or operation == "decay"
        if k == v or operation not in _TWO_STEPS
        if gate != "scalar" or operation != "dplr"  # which expands it to a channel's
    ]
    layers = [
        Case(operation=name, gate=gate, dim=n, value_dim=n, dtype=dtype, length=length)
        for dtype in layer_dtypes
        for name, gates, sizes, length in _LAYERS
        for gate, n in product(gates, sizes or widths)
    ]
    of_heads = [
        Case(operation=operation, gate=None, dim=k, value_dim=v, dtype=dtype, length=128)
        for operation, of_dtypes in _OF_HEADS.items()
        for dtype, (k, v) in product(dtypes if of_dtypes == "recurrence" else layer_dtypes, dims)
        if k == v
    ]
    attention = [
        Case(operation="attention", gate=gate, dim=k, value_dim=v, dtype=dtype, length=128)
        for gate, dtype, (k, v) in product((None, "scalar", "sinks"), dtypes, dims)
        if k == v
    ]
    unit_heads = [
        Case(operation="unit heads", gate="silu", dim=k, value_dim=k, dtype=dtype, length=128)
        for dtype in layer_dtypes
        for k in dict.fromkeys(k for k, _ in dims)
        if has_fused_heads(k)
    ]
    return recurrences + of_heads + attention + layers + unit_heads


def warm(
    arch: int, jobs: int, chosen: Sequence[Case], folder: Path | None = None
) -> Iterator[Warmed]:
    """Cases as they are done. arch: a compute capability such as 90; jobs: processes at once;
    folder: the cache to fill, TRITON_CACHE_DIR if None.
    """
    spawned = multiprocessing.get_context("spawn")  # a fork would inherit a driver already found
    with ProcessPoolExecutor(
        jobs, mp_context=spawned, initializer=compile_instead_of_launching, initargs=(arch, folder)
    ) as pool:
        for done in as_completed([pool.submit(_compiled, case) for case in chosen]):
            yield done.result()


class _Target:
    """Stands in for Triton's driver: a GPU's name without the GPU."""

    def __init__(self, arch: int) -> None:
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


# Tools that torch.compile names in its process's environment, for all that begins there later.
# With others a kernel has another key, and no process with a clean environment would find it.
_NAMED_TOOLS = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH", "TRITON_LIBDEVICE_PATH")

_seen: dict[str, Any] = {}  # compiled kernels of this process by hash
_wanted: Callable[[Any, dict[str, Any]], bool] | None = None  # by kernel and options; None: all


def compile_instead_of_launching(arch: int, folder: Path | None = None) -> None:
    """From now on in this process, which has no GPU for Triton any more.

    folder: for processes whose environment is made anew, and so with Triton's own tools.
    """
    if folder is not None:
        os.environ["TRITON_CACHE_DIR"] = str(folder)
        for tool in _NAMED_TOOLS:
            os.environ.pop(tool, None)
    torch.set_num_threads(1)
    triton.runtime.driver.set_active(_Target(arch))

    def launcher(kernel: Any, grid: Any) -> Any:
        def compile_it(*args: Any, **options: Any) -> None:
            if _wanted is not None and not _wanted(kernel, options):
                return
            compiled = kernel.run(*args, grid=grid, warmup=True, **options)
            _seen[compiled.hash] = compiled

        return compile_it

    triton.JITFunction.__getitem__ = launcher


@contextmanager
def only(wanted: Callable[[Any, dict[str, Any]], bool]) -> Iterator[None]:
    """Other launches are passed over."""
    global _wanted
    _wanted = wanted
    try:
        yield
    finally:
        _wanted = None


def compile_recurrence(case: Case, passes: Sequence[tuple[bool, bool]]) -> None:
    """passes: with gradients or without, with states or without."""
    _seen.clear()
    for with_grad, with_state in passes:
        _recurrence(case, with_grad, with_state)
    for kernel in _seen.values():
        _build_stub(kernel)


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _compiled(case: Case) -> Warmed:
    _seen.clear()
    try:
        for run in _runs(case):
            run()
        launchers = sum(_build_stub(kernel) for kernel in _seen.values())
    except (RuntimeError, ValueError, triton.TritonError) as error:
        return Warmed(
            case=str(case), kernels=frozenset(_seen), launchers=0, failure=first_line(error)
        )
    return Warmed(case=str(case), kernels=frozenset(_seen), launchers=launchers, failure=None)


def _runs(case: Case) -> Iterator[partial[None]]:
    make = _MAKERS.get(case.operation)
    if make is not None:
        yield from (partial(make, case, with_grad) for with_grad in (True, False))
        return
    # Training has no state before its rows, streaming no gradients.
    for with_grad, with_state in ((True, False), (False, False), (False, True)):
        yield partial(_recurrence, case, with_grad, with_state)
    if case.gate == "scalar":
        yield partial(_recurrence, case, True, False, learns_gate=False)


def _recurrence(case: Case, with_grad: bool, with_state: bool, *, learns_gate: bool = True) -> None:
    """One pass forward, from a state or none, and one backward through the output."""
    from .decay import decay_fused
    from .delta import delta_fused
    from .dplr import dplr_fused
    from .oja import oja_fused

    rows, leaf = (2, case.length, 2), partial(_leaf, with_grad)
    steps = (2, case.length * (2 if case.operation in _TWO_STEPS else 1), 2)
    q, k = (leaf(*shape, case.dim, dtype=case.dtype) for shape in (rows, steps))
    v = leaf(*steps, case.value_dim, dtype=case.dtype)
    channels = case.value_dim if case.operation == "oja" else case.dim
    shapes = {"scalar": rows, "channel": (*rows, channels)}
    gate = None if case.gate is None else _leaf(with_grad and learns_gate, *shapes[case.gate])
    start = leaf(2, 2, case.dim, case.value_dim) if with_state else None
    if case.operation == "decay":
        o, _ = decay_fused(q, k, v, gate, start, 1.0)
    elif case.operation == "oja":
        o, _ = oja_fused(q, k, v, leaf(*steps), gate, start, 1.0)
    elif case.operation == "dplr":
        a, b = (leaf(*rows, case.dim, dtype=case.dtype) for _ in range(2))
        o, _ = dplr_fused(q, k, v, a, b, gate, start, 1.0)
    else:
        erase = leaf(*steps, case.dim, dtype=case.dtype) if case.operation == "erase" else None
        columns = leaf(*v.shape) if case.operation == "columns" else None
        o, _ = delta_fused(q, k, v, leaf(*steps), gate, columns, erase, start, 1.0)
    if with_grad:
        o.sum().backward()


def _norm(case: Case, with_grad: bool) -> None:
    """In the input's dtype and, without a gate, also of a float32 stream in the case's."""
    from .norm import norm_fused_rows

    for dtype in {case.dtype, torch.float32 if case.gate is None else case.dtype}:
        x = _leaf(with_grad, case.length, case.dim, dtype=dtype)
        gate = None if case.gate is None else torch.zeros_like(x)
        weight = _leaf(with_grad, case.dim)
        y = norm_fused_rows(x, weight, gate, case.gate or "silu", 1e-6, case.dtype)
        if with_grad:
            y.sum().backward()


def _residual(case: Case, with_grad: bool) -> None:
    """What a block adds to a float32 stream, and its norm for the next block and for the head."""
    from .residual_norm import add_norm_fused

    for dtype in {case.dtype, torch.float32}:
        x = _leaf(with_grad, case.length, case.dim, dtype=case.dtype)
        residual, weight = _leaf(with_grad, *x.shape), _leaf(with_grad, case.dim)
        y, total = add_norm_fused(x, residual, weight, 1e-6, dtype)
        if with_grad:
            (y.float().sum() + total.sum()).backward()


def _product(case: Case, with_grad: bool) -> None:
    from .gating import product_fused

    x, gate = (_leaf(with_grad, case.length, case.dim, dtype=case.dtype) for _ in range(2))
    y = product_fused(x, gate, case.gate or "silu")
    if with_grad:
        y.sum().backward()


def _skip_product(case: Case, with_grad: bool) -> None:
    from .skip_product import skip_product_fused

    rows = (_leaf(with_grad, case.length, case.dim, dtype=case.dtype) for _ in range(3))
    y = skip_product_fused(*rows, _leaf(with_grad, case.dim), case.gate or "silu")
    if with_grad:
        y.sum().backward()


def _swiglu(case: Case, with_grad: bool) -> None:
    """Also at widths that are no multiple of 16, 8 or 4, as a budget of parameters gives them."""
    from .gating import swiglu_fused

    for less in (0, 8, 4, 1):
        packed = _leaf(with_grad, case.length, 2 * (case.dim - less), dtype=case.dtype)
        y = swiglu_fused(packed)
        if with_grad:
            y.sum().backward()


def _bonus(case: Case, with_grad: bool) -> None:
    from .bonus import bonus_fused

    rows = (2, case.length, 2)
    q, k = (_leaf(with_grad, *rows, case.dim, dtype=case.dtype) for _ in range(2))
    o, v = (_leaf(with_grad, *rows, case.value_dim, dtype=case.dtype) for _ in range(2))
    y = bonus_fused(o, q, k, v, _leaf(with_grad, 2, case.dim), 1.0)
    if with_grad:
        y.sum().backward()


def _normaliser(case: Case, with_grad: bool) -> None:
    from ..normaliser import normalised_width
    from .normaliser import divided_fused

    width = normalised_width(case.dim, "triton")
    y = divided_fused(_leaf(with_grad, case.length, width, dtype=case.dtype), case.dim)
    if with_grad:
        y.sum().backward()


def _strengths(case: Case, with_grad: bool) -> None:
    """Of one head for many, as Mamba-2 has it: a slice of what a convolution made."""
    from .strength import scaled_heads_fused

    packed = _leaf(with_grad, 2, case.length, 1, 16 + case.dim, dtype=case.dtype)
    y = scaled_heads_fused(packed[..., 16:], _leaf(with_grad, 2, case.length, 4))
    if with_grad:
        y.sum().backward()


def _rotary(case: Case, with_grad: bool) -> None:
    from .rotary import rotary_fused

    x = _leaf(with_grad, 2, case.length, 16, case.dim, dtype=case.dtype)
    y = rotary_fused(x, *torch.zeros(2, case.length, case.dim // 2))
    if with_grad:
        y.sum().backward()


def _token_shift(case: Case, with_grad: bool) -> None:
    """As many blends as RWKV-6 and RWKV-7 have; training has no token before its rows."""
    from .token_shift import token_shift_fused

    x = _leaf(with_grad, 2, case.length, case.dim, dtype=case.dtype)
    for n in (5,) if case.gate == "offsets" else (1, 6):
        offsets = _leaf(with_grad, n, *x.shape, dtype=case.dtype) if case.gate else None
        blends = token_shift_fused(x, _leaf(with_grad, n, case.dim), offsets, None)
        if with_grad:
            sum(blend.sum() for blend in blends).backward()


def _activation(case: Case, with_grad: bool) -> None:
    from .pointwise import activation_fused

    function = case.gate or "sigmoid"
    for given in _GIVEN[function]:
        bias, rate = (_leaf(with_grad, case.dim) if has else None for has in given)
        for dtype in {torch.float32} if any(given) else {case.dtype, torch.float32}:
            x = _leaf(with_grad, case.length, case.dim, dtype=case.dtype)
            y = activation_fused(x, function, bias, rate, 1.0, 0.0, dtype)
            if with_grad:
                y.sum().backward()


def _convolution(case: Case, with_grad: bool) -> None:
    """Rows end to end, and as slices of a projection with an even and an odd number of others."""
    for others, has_bias in product((0, 2, 1), (False, True)):
        bias = _leaf(with_grad, case.dim) if has_bias else None
        _convolve(case, with_grad, case.dim, others, bias)


def _unit_heads(case: Case, with_grad: bool) -> None:
    for others in (0, 2, 1):
        _convolve(case, with_grad, 16 * case.dim, others, None, 2 * case.dim, case.dim, 1e-6)


def _convolve(
    case: Case, with_grad: bool, channels: int, others: int, bias: Tensor | None, *heads: Any
) -> None:
    from .convolution import convolution_tiles

    packed = _leaf(with_grad, 2, case.length, channels + others, dtype=case.dtype)
    weight = _leaf(with_grad, channels, 4)
    start = torch.zeros(2, 3, channels, dtype=case.dtype)
    y = convolution_tiles(packed[..., :channels], weight, bias, start, case.gate, *heads)
    if with_grad:
        y.sum().backward()


def _loss(case: Case, with_grad: bool) -> None:
    from .cross_entropy import loss_and_gradient_fused

    logits = torch.zeros(16, case.dim, dtype=case.dtype)
    loss_and_gradient_fused(logits, torch.zeros(16, dtype=torch.int64), torch.ones(16), with_grad)


def _scan(case: Case, with_grad: bool) -> None:
    """Without states, and with both."""
    from .scan import scan_fused

    rows = (2, case.length, case.dim)
    for start in (None, _leaf(with_grad, 2, case.dim)):
        x = _leaf(with_grad, *rows, dtype=case.dtype)
        gate = _leaf(with_grad, *(rows if case.gate == "channel" else rows[2:]))
        h, final = scan_fused(x, gate, start)
        if with_grad:
            (h.sum() if start is None else h.float().sum() + final.sum()).backward()


def _attention(case: Case, with_grad: bool) -> None:
    """A window or none: it is an argument of the same kernels."""
    from .attention import attention_fused

    rows, leaf = (2, case.length, 2), partial(_leaf, with_grad)
    q, k, v = (leaf(*rows, case.dim, dtype=case.dtype) for _ in range(3))
    gate = leaf(*rows) if case.gate == "scalar" else None
    sinks = leaf(2) if case.gate == "sinks" else None
    o = attention_fused(q, k, v, gate, sinks, None, 1.0)
    if with_grad:
        o.sum().backward()


_MAKERS = {
    "norm": _norm,
    "residual": _residual,
    "gated product": _product,
    "skip product": _skip_product,
    "swiglu": _swiglu,
    "token shift": _token_shift,
    "bonus": _bonus,
    "rotary": _rotary,
    "strengths": _strengths,
    "normaliser": _normaliser,
    "activation": _activation,
    "convolution": _convolution,
    "unit heads": _unit_heads,
    "loss": _loss,
    "scan": _scan,
    "attention": _attention,
}


def _leaf(with_grad: bool, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=with_grad)


def _build_stub(kernel: Any) -> bool:
    """True if it did; else, for want of the driver's library, the process that launches does."""
    if not HAS_STUBS or ctypes.util.find_library("cuda") is None:
        return False
    driver.CudaUtils()
    build_launch_stub(kernel)
    return True
