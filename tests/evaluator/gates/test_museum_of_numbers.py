"""Mixers whose arithmetic breaks in bfloat16 or on large inputs, sound in all else."""

from __future__ import annotations

import pytest
import torch
from honest_mixer import Honest, check_cheat


class NaiveSoftplus(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + (1 + x.exp()).log(), state


class UnboundedExponential(Honest):
    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y * x.mean(dim=-1, keepdim=True).exp() + (0.5 * x).exp(), state


class HalfPrecisionInside(Honest):
    """float16 ends at 65,504, and bfloat16 does not tell it so."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + x.half().square().sum(dim=-1, keepdim=True).sqrt().to(x.dtype), state


class CancellingOffset(Honest):
    """Fine in float32; in bfloat16 nothing is left after the point."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + ((x + 300) - 300), state


class LowPrecisionSums(Honest):
    """A running mean of what is far from zero, kept in x's own precision."""

    def forward(self, x, state=None):
        y, after = super().forward(x, state)
        total = torch.zeros_like(x[:, 0]) if state is None else state["total"]
        n_seen = torch.zeros((), dtype=torch.int64) if state is None else state["n_seen"]
        outputs = []
        for token in (x + 4).unbind(1):
            total, n_seen = total + token, n_seen + 1
            outputs.append((total - 4 * n_seen).to(x.dtype))
        after.update(total=total, n_seen=n_seen)
        return y + torch.stack(outputs, dim=1), after


class GradientBehindWhere(Honest):
    """The branch not taken is infinite, and zero times its slope is no number."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + torch.where(x > 20, x, (1 + x.exp()).log()), state


STABLE = {"stability"}
CHEATS = [
    (NaiveSoftplus, "stability", STABLE),
    (UnboundedExponential, "stability", STABLE),
    (HalfPrecisionInside, "stability", STABLE),
    (CancellingOffset, "stability", STABLE),
    (LowPrecisionSums, "stability", STABLE),
    (GradientBehindWhere, "stability", STABLE),
]


@pytest.mark.parametrize(
    ("cheat", "first", "failing"), CHEATS, ids=[cheat.__name__ for cheat, *_ in CHEATS]
)
def test_fragile_arithmetic_is_found_and_passes_without_its_gate(cheat, first, failing, make_probe):
    check_cheat(lambda: make_probe(cheat), first, failing)
