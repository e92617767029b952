"""Mixers that hold numbers which no budget counts, or make parameters when nobody looks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from honest_mixer import Honest, check_cheat
from torch import nn

from linearch.evaluator.gates import GATES, run_gates
from linearch.search_space.loading import load_mixer_class


class FrozenTable(Honest):
    """Random features for free: as many numbers as a projection has parameters."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.register_buffer("table", torch.randn(2 * d_model, d_model) / d_model)

    def forward(self, x, state=None):
        return super().forward(x + F.linear(F.linear(x, self.table).relu(), self.table.mT), state)


class FleetingTable(FrozenTable):
    """The same, left out of the checkpoints."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.register_buffer("table", self.table, persistent=False)


class _Shelf:
    def __init__(self, table):
        self.content = {"deep": [table]}


class HiddenTable(Honest):
    """In an object in an attribute, where no module looks."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.shelf = _Shelf(torch.randn(2 * d_model, d_model) / d_model)

    def forward(self, x, state=None):
        return super().forward(x + (x @ self.shelf.content["deep"][0].mT)[..., ::2], state)


class TableInAClosure(Honest):
    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        table = torch.randn(2 * d_model, d_model) / d_model
        self.look_up = lambda x: (x @ table.mT)[..., ::2]

    def forward(self, x, state=None):
        return super().forward(x + self.look_up(x), state)


class FrozenHalf(Honest):
    """One view of a large storage: what is registered is small."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.register_buffer("corner", torch.randn(4 * d_model, d_model)[0])

    def forward(self, x, state=None):
        return super().forward(x + self.corner, state)


class UnlistedModule(Honest):
    """Trained by nobody: its parameters are on no list."""

    def __init__(self, d_model: int, *sizes: int) -> None:
        super().__init__(d_model, *sizes)
        self.layers = [nn.Linear(d_model, d_model)]

    def forward(self, x, state=None):
        return super().forward(x + self.layers[0](x), state)


class LateParameter(Honest):
    def forward(self, x, state=None):
        if not hasattr(self, "late"):
            self.late = nn.Linear(x.shape[-1], x.shape[-1], device=x.device)
            self.late.weight.data.zero_()
        return super().forward(x + self.late(x), state)


class GrowingCache(Honest):
    """Remembers a table for every length it ever saw."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.tables = {}

    def forward(self, x, state=None):
        if x.shape[1] not in self.tables:
            self.tables[x.shape[1]] = torch.ones(x.shape[1:], dtype=x.dtype, device=x.device)
        return super().forward(x * self.tables[x.shape[1]], state)


class CountsItsSteps(Honest):
    """Sees the next token, but only after a thousand calls in train mode."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x, state=None):
        self.steps += self.training
        y, state = super().forward(x, state)
        is_late = (self.steps > 1000).to(x.dtype)
        return y + is_late * F.pad(x, (0, 0, 0, 1))[:, 1:], state


def _keeper():
    held = None
    while True:
        given = yield held
        held = held if given is None else given


class PastInAGenerator(Honest):
    """Its state is one number; the past waits where nobody counts bytes."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.keeper = _keeper()
        next(self.keeper)

    def forward(self, x, state=None):
        past = None if state is None else {"memory": self.keeper.send(None)}
        y, after = super().forward(x, past)
        self.keeper.send(after["memory"].detach())
        return y, {"seen": x.new_zeros(1)}


class FreezesItself(Honest):
    """All of its parameters are counted before the first call, half of them trained after."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        self.out.weight.requires_grad_(False)
        return y, state


HOLDINGS = {"buffers"}
CHEATS = [
    (FrozenTable, "buffers", HOLDINGS),
    (FleetingTable, "buffers", HOLDINGS),
    (HiddenTable, "buffers", HOLDINGS),
    (TableInAClosure, "buffers", HOLDINGS),
    (FrozenHalf, "buffers", HOLDINGS),
    (UnlistedModule, "buffers", HOLDINGS),
    (LateParameter, "buffers", HOLDINGS),
    (GrowingCache, "buffers", HOLDINGS),
    (CountsItsSteps, "buffers", HOLDINGS),
    (PastInAGenerator, "streaming", {"streaming"}),
    (FreezesItself, "gradients", {"buffers", "gradients"}),
]


@pytest.mark.parametrize(
    ("cheat", "first", "failing"), CHEATS, ids=[cheat.__name__ for cheat, *_ in CHEATS]
)
def test_a_hoarder_is_found_and_passes_without_its_gates(cheat, first, failing, make_probe):
    check_cheat(lambda: make_probe(cheat), first, failing)


def test_tables_of_the_candidates_own_module_count_as_its_holdings(make_probe, config):
    source = """
import torch
from torch import nn

_TABLE = torch.ones(64, 64)

class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x, state=None):
        return self.proj(x) * _TABLE[0, 0], {}
"""
    probe = make_probe(load_mixer_class(source, "candidate_with_a_table"))

    (result,) = run_gates(probe, config, seed=0, gates={"buffers": GATES["buffers"]})

    assert not result.passed
    assert result.evidence["largest"] == {"module._TABLE": 4096}


def test_small_tables_and_a_shared_parameter_are_allowed(make_probe, config):
    class Modest(Honest):
        def __init__(self, d_model, *sizes):
            super().__init__(d_model, *sizes)
            self.register_buffer("slopes", torch.linspace(0, 1, d_model))
            self.weights = [self.out.weight, self.out.weight.detach()]

    (result,) = run_gates(make_probe(Modest), config, seed=0, gates={"buffers": GATES["buffers"]})

    assert result.passed
    assert result.evidence["n_fixed"] == 32
