"""Equal budgets: the MLP's width makes up for what a mixer spends on parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..errors import CandidateRejected

MIN_MLP_WIDTH = 8


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in a model, shared tensors counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def match_mlp_width(
    count_at_width: Callable[[int], int],
    budget: int,
    tolerance: float,
    min_width: int = MIN_MLP_WIDTH,
    multiple: int = 1,
) -> int:
    """The MLP width whose total is nearest to `budget`: among multiples of `multiple` where one of
    them comes within the relative `tolerance`, else among all.

    `count_at_width` gives the total at a width and is asked twice: the total grows by the same
    amount with every unit of width. Raises CandidateRejected("parameters", ...) if even `min_width`
    is too large, or if no width comes within the relative `tolerance`.
    """
    base = count_at_width(min_width)
    step = count_at_width(min_width + 1) - base
    if step <= 0:  # counts may come from a candidate's own process
        raise CandidateRejected(
            "parameters", f"The model's parameters do not grow with its MLP ({step:+,} a unit)."
        )
    exact = min_width + (budget - base) / step
    for unit in (multiple, 1):
        width = max(min_width, unit * round(exact / unit))
        total = base + step * (width - min_width)
        if abs(total - budget) <= tolerance * budget:
            return width
    raise CandidateRejected("parameters", _explain(total, budget, tolerance, width, min_width))


def _explain(total: int, budget: int, tolerance: float, width: int, min_width: int) -> str:
    wanted = f"{budget:,} ± {tolerance:.0%}"
    if width == min_width:
        return (
            f"The model has {total:,} parameters with the narrowest MLP ({width}), but {wanted} "
            f"are allowed: the mixers must be smaller by about {total - budget:,} in all."
        )
    return f"No MLP width brings the model to {wanted} parameters; the nearest total is {total:,}."
