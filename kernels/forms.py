"""Which form of an operation runs: the naive loop (its specification), chunked torch, or Triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Form = Literal["naive", "chunked", "triton"]

_TRITON_IS_INSTALLED = importlib.util.find_spec("triton") is not None

# Module's variables, which torch.compile can read and guards; a ContextVar breaks its graphs.
_forced: Form | None = None
_can_compile = True


@contextmanager
def force_form(form: Form) -> Iterator[None]:
    """Make every operation called inside use `form`, whatever its own `form` argument says.

    Calls that have no Triton form take the chunked one under "triton".
    """
    global _forced
    before, _forced = _forced, _known(form)
    try:
        yield
    finally:
        _forced = before


def without_compilers() -> None:
    """From now on a call in this process takes Triton's form only where it asks for it: a kernel
    that is not in Triton's cache could not be compiled.
    """
    global _can_compile
    _can_compile = False


def choose_form(
    requested: Form | None,
    steps: int | None = None,
    *,
    fused_on: torch.device | None = None,
    fused_is_best: bool = True,
) -> Form:
    """The forced form, else the requested one; else a naive step for a recurrence of one, Triton's
    form on a GPU where it is the best, and the chunked one.

    fused_on: the tensors' device for a call that has a Triton form, else None. Asking for it where
    there is none is a ValueError.
    """
    fused = fused_on is not None and runs_triton(fused_on)
    if _forced is not None:
        return "chunked" if _forced == "triton" and not fused else _forced
    if requested == "triton" and not fused:
        raise ValueError(
            "form is 'triton', which this call does not have (see docs/kernels.md); "
            "wanted 'naive', 'chunked' or None"
        )
    if requested is not None:
        return _known(requested)
    if steps == 1:
        return "naive"
    unasked = fused and fused_is_best and _can_compile
    return "triton" if unasked and fused_on is not None and fused_on.type == "cuda" else "chunked"


def runs_triton(device: torch.device) -> bool:
    """On NVIDIA's GPUs, and under TRITON_INTERPRET=1 on a CPU."""
    if not _TRITON_IS_INSTALLED:
        return False
    if device.type == "cuda":
        return torch.version.cuda is not None
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


def _known(form: Form) -> Form:
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}; wanted one of {', '.join(get_args(Form))} or None")
    return form
