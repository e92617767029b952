"""Torch operators of functions that launch kernels.

What torch.library.custom_op makes imports torch's compiler at its first call, a second of a
process that has no optimizer to do so, and looks for aliases at each. These are made by the calls
below it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from . import first_call

_NAMESPACE = "linearch"
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")


class Operator:
    """Calls a function through torch's dispatcher; its schema is made of the annotations.

    The function must give new tensors, no views of its arguments. It may be called three times for
    one (first_call.py), so it neither draws random numbers nor reads what kernels made.
    RuntimeError in a backward pass through an operator without `register_autograd`. One that
    mutates its arguments knows nothing of gradients: it is for calls inside an autograd function.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        mutates_args: tuple[str, ...],
        outputs: int | None,
    ) -> None:
        schema = torch.library.infer_schema(function, mutates_args=mutates_args)
        if outputs is not None:
            schema = schema.replace("-> Tensor[]", f"-> ({', '.join(['Tensor'] * outputs)})")
        self.name = f"{_NAMESPACE}::{name}"
        given = function if outputs is None else _as_tuple(function)
        # A first call may be made more than once, which what mutates does not stand.
        self._function = given if mutates_args else partial(first_call.call, given)
        self._gives_outputs = outputs is not None
        self._untraced: Callable[..., Any] | None = None
        self._backward: Callable[..., Any] = self._refuse
        self._setup_context: Callable[..., None] = _keep_nothing
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, self._run, "CompositeExplicitAutograd")
        self.overload = getattr(getattr(torch.ops, _NAMESPACE), name).default
        if not mutates_args:
            torch.library.register_autograd(
                self.name,
                lambda ctx, *grads: self._backward(ctx, *grads),
                setup_context=lambda ctx, inputs, output: self._setup_context(ctx, inputs, output),
                lib=_LIBRARY,
            )

    def __call__(self, *args: Any) -> Any:
        return self.overload(*args)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Shapes and dtypes of what the operator gives, for tensors without memory."""
        fake = _as_tuple(function) if self._gives_outputs else function
        torch.library.register_fake(self.name, fake, lib=_LIBRARY)
        return function

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., None]
    ) -> None:
        """backward(ctx, *grads) gives the arguments' gradients; setup_context(ctx, inputs, output)
        keeps what it needs.
        """
        self._backward, self._setup_context = backward, setup_context

    def _run(self, *args: Any) -> Any:
        # None also while another thread imports it.
        disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)
        if disable is None:
            return self._function(*args)
        if self._untraced is None:  # or torch.compile traces the function where it leaves a caller
            self._untraced = disable(self._function)
        return self._untraced(*args)

    def _refuse(self, *_: Any) -> None:
        raise RuntimeError(f"{self.name} has no gradient: it cannot be differentiated (again)")


def operator(
    name: str, *, mutates_args: tuple[str, ...] = (), outputs: int | None = None
) -> Callable[[Callable[..., Any]], Operator]:
    """Makes an Operator of a function; positional arguments alone.

    outputs: of how many tensors the list is that the function gives. The operator then gives a
    tuple, of which autograd takes less than two thirds of the time.
    """
    return lambda function: Operator(name, function, mutates_args, outputs)


def _as_tuple(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: tuple(function(*args))


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """For an operator without a gradient."""
