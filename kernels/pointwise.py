"""activation: rate * f(x + bias) in one pass: a gate, a write strength or a feature map.

What a mixer puts between a projection and a recurrence: decays as of GLA (arXiv 2312.06635),
Mamba-2 (2405.21060), HGRN-2 (2404.07904) and RWKV-6 (2404.05892), strengths of the delta rule,
feature maps of linear attention (2006.16236).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .checks import Arguments
from .chunked.pointwise import activated
from .forms import Form, choose_form
from .naive.pointwise import activation_formula
from .precision import without_autocast, working_dtype

Function = Literal[
    "elu_plus_one",
    "exp",
    "log_sigmoid",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "squared_relu",
]


@without_autocast
def activation(
    x: Tensor,
    function: Function,
    *,
    bias: Tensor | None = None,
    rate: Tensor | float = 1.0,
    floor: float = 0.0,
    out_dtype: torch.dtype | None = None,
    form: Form | None = None,
) -> Tensor:
    """rate * function(x + bias), computed in at least float32.

    x: [..., D]; bias, rate: of x's last axes, or broadcast to them ([H, 1] to [B, T, H, K], say).
    floor: 0 to 1; "log_sigmoid" is the log of floor + (1 - floor) sigmoid.

    Returns x's shape in out_dtype (None: x's; a log decay wants float32). ValueError for arguments
    that do not fit each other.
    """
    check = Arguments("activation")
    _check(check, x, function, floor, out_dtype)
    factor, rates = (1.0, rate) if isinstance(rate, Tensor) else (float(rate), None)
    bias, rates = along(check, "bias", bias, x), along(check, "rate", rates, x)
    dtype = working_dtype(x, bias, rates)
    form = choose_form(form, fused_on=x.device if dtype == torch.float32 else None)
    if form == "triton":
        from .triton.pointwise import activation_fused  # needs a package some machines lack

        return activation_fused(x, function, bias, rates, factor, floor, out_dtype or x.dtype)
    run = activation_formula if form == "naive" else activated
    wide = x.to(dtype) if bias is None else x.to(dtype) + bias
    y = run(wide, function, floor)
    y = y if factor == 1.0 else y * factor
    return (y if rates is None else y * rates).to(out_dtype or x.dtype)


def _check(
    check: Arguments, x: Tensor, function: str, floor: float, out_dtype: torch.dtype | None
) -> None:
    check.placed("x", x)
    check.tensor("x", x, " ".join(f"axis{i}" for i in range(x.dim())))
    if function not in get_args(Function):
        wanted = ", ".join(get_args(Function))
        raise check.error(f"function is {function!r}; wanted one of {wanted}")
    if floor != 0 and (function != "log_sigmoid" or not 0 < floor < 1):
        raise check.error(
            f"floor is {floor} for {function!r}; wanted 0, or below 1 for a log_sigmoid"
        )
    if out_dtype is not None and not out_dtype.is_floating_point:
        raise check.error(f"out_dtype is {out_dtype}; wanted a floating dtype, or None")


def along(check: Arguments, name: str, parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """The parameter broadcast to as many of x's last axes as it has, in at least float32, in which
    the gradients of what is repeated are then added up.
    """
    if parameter is None:
        return None
    check.placed(name, parameter)
    last = x.shape[x.dim() - parameter.dim() :]
    fits = parameter.dim() <= x.dim() and all(
        size in (1, wanted) for size, wanted in zip(parameter.shape, last, strict=True)
    )
    if not fits:
        had, wanted = list(parameter.shape), list(x.shape)
        raise check.error(f"{name} has shape {had}; wanted x's last axes, of {wanted}, or ones")
    while parameter.dim() > 1 and parameter.shape[0] == 1:  # or all of x would be one row
        parameter = parameter[0]
    return parameter.to(working_dtype(parameter)).expand(x.shape[x.dim() - parameter.dim() :])
