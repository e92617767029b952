"""The table of `linearch bench kernels`: each operation's times beside their floor and a peer's.

The floor is the time of the bytes an operation cannot avoid (each input read once, each output
written once, and for the backward pass each input and output gradient too) at the memory bandwidth
measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .bench_cases import SHAPES_ON_CPU, SHAPES_ON_GPU, Case, Shape, cases
from .bench_clock import memory_bandwidth, peak_bytes, run_ms, size_bytes
from .bench_peer import lift_guard, peer_call
from .forms import Form


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One operation at one shape. Ratios are the peer's time over ours; None: not measured.

    workspace_bytes: the peak of forward + backward beyond inputs, outputs and their gradients.
    """

    operation: str
    shape: Shape
    device: str
    form: Form | None  # None: what a call takes by itself
    forward_ms: float
    both_ms: float  # forward and backward
    forward_floor_ms: float | None
    both_floor_ms: float | None
    workspace_bytes: int | None
    peer_forward_ms: float | None = None
    peer_both_ms: float | None = None
    peer_workspace_bytes: int | None = None
    forward_ratio: float | None = None
    both_ratio: float | None = None
    peer_guard_lifted: bool = False


def measure(
    device: torch.device,
    *,
    shapes: tuple[Shape, ...] = (),
    operations: tuple[str, ...] = (),
    form: Form | None = None,
    with_peer: bool = False,
) -> Iterator[Row]:
    """Rows as they are measured. shapes: () for the device's own; operations: names' beginnings."""
    torch.manual_seed(0)
    bytes_per_ms = memory_bandwidth(device)
    for shape in shapes or (SHAPES_ON_GPU if device.type == "cuda" else SHAPES_ON_CPU):
        for case in cases(shape, device, operations, form):
            row = _row(case, device, form, bytes_per_ms)
            yield _with_peer(row, case, device) if with_peer else row


def _row(case: Case, device: torch.device, form: Form | None, bytes_per_ms: float | None) -> Row:
    call, form = _in_form(case, form)
    o = output_of(call()).detach()
    timed = _timed(case, call, o, device)
    once = size_bytes(*case.leaves, *case.others, o)
    back = size_bytes(*case.leaves, *case.leaves, o)
    return Row(
        operation=case.operation,
        shape=case.shape,
        device=device.type,
        form=form,
        forward_floor_ms=None if bytes_per_ms is None else once / bytes_per_ms,
        both_floor_ms=None if bytes_per_ms is None else (once + back) / bytes_per_ms,
        forward_ms=timed.forward_ms,
        both_ms=timed.both_ms,
        workspace_bytes=timed.workspace_bytes,
    )


def _with_peer(row: Row, case: Case, device: torch.device) -> Row:
    call = peer_call(case)
    if call is None:
        return row
    lifted = lift_guard(case.operation)
    timed = _timed(case, call, output_of(call()).detach(), device)
    return replace(
        row,
        peer_forward_ms=timed.forward_ms,
        peer_both_ms=timed.both_ms,
        peer_workspace_bytes=timed.workspace_bytes,
        forward_ratio=timed.forward_ms / row.forward_ms,
        both_ratio=timed.both_ms / row.both_ms,
        peer_guard_lifted=lifted,
    )


def _in_form(case: Case, form: Form | None) -> tuple[Callable[[], Any], Form | None]:
    """The call in a form; in the chunked one where the operation has no Triton form."""
    call = partial(case.call, form=form)
    if form != "triton":
        return call, form
    try:
        call()
    except ValueError as refusal:
        if "triton" not in str(refusal).lower():
            raise
        return partial(case.call, form="chunked"), "chunked"
    return call, form


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    forward_ms: float
    both_ms: float
    workspace_bytes: int | None


def _timed(case: Case, call: Callable[[], Any], o: Tensor, device: torch.device) -> _Timed:
    grad, leaves = torch.randn_like(o), case.leaves
    milliseconds = partial(run_ms, device=device, is_recorded=not case.is_packed)

    def forward() -> None:
        with torch.no_grad():
            call()

    def both() -> None:
        torch.autograd.grad(output_of(call()), leaves, grad, allow_unused=True)

    both()
    peak = peak_bytes(both, device)
    return _Timed(
        forward_ms=milliseconds(forward),
        both_ms=milliseconds(both),
        workspace_bytes=None if peak is None else max(peak - size_bytes(*leaves, o), 0),
    )


def output_of(returned: Any) -> Tensor:
    output: Tensor = returned[0] if isinstance(returned, tuple) else returned
    return output


HEADER = (
    f"{'operation':20}{'B, T, H, K':>20}{'form':>9}{'fwd ms':>9}{'f+b ms':>9}{'peer fwd':>10}"
    f"{'peer f+b':>10}{'ratio':>7}{'ratio':>7}{'floor':>8}{'floor':>8}{'MiB':>7}{'peer':>7}"
)
LEGEND = (
    "f+b: forward and backward. ratio: the peer's time over ours. floor: ms that the bytes which "
    "cannot be avoided take. MiB: peak beyond inputs, outputs and gradients. "
    "*: the peer refuses this here; timed with its guard lifted, gradients unchecked."
)


def line(row: Row) -> str:
    """A row of the table under HEADER; a dash for what was not measured."""
    shape = ", ".join(str(n) for n in row.shape)
    star = "*" if row.peer_guard_lifted else ""
    return (
        f"{row.operation:20}{shape:>20}{row.form or 'default':>9}"
        f"{row.forward_ms:9.3f}{row.both_ms:9.3f}"
        f"{_cell(row.peer_forward_ms, 3) + star:>10}{_cell(row.peer_both_ms, 3) + star:>10}"
        f"{_cell(row.forward_ratio, 2):>7}{_cell(row.both_ratio, 2):>7}"
        f"{_cell(row.forward_floor_ms, 3):>8}{_cell(row.both_floor_ms, 3):>8}"
        f"{_mebibytes(row.workspace_bytes):>7}{_mebibytes(row.peer_workspace_bytes):>7}"
    )


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f}"
