"""Which form of an operation runs: the naive loop (its specification) or the chunked torch form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

Form = Literal["naive", "chunked"]

_forced: ContextVar[Form | None] = ContextVar("linearch_forced_form", default=None)


@contextmanager
def force_form(form: Form) -> Iterator[None]:
    """Make every operation called inside use `form`, whatever its own `form` argument says."""
    token = _forced.set(_known(form))
    try:
        yield
    finally:
        _forced.reset(token)


def choose_form(requested: Form | None, steps: int | None = None) -> Form:
    """The forced form, else the requested one, else chunked; a recurrence of one step is naive."""
    forced = _forced.get()
    if forced is not None:
        return forced
    if requested is not None:
        return _known(requested)
    return "naive" if steps == 1 else "chunked"


def _known(form: Form) -> Form:
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}; wanted one of {', '.join(get_args(Form))} or None")
    return form
