"""The sound mixer that the museum's cheats add a fault to, and the check that each must stand."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from linearch.config import GateConfig
from linearch.evaluator.gates import GATES, run_gates
from linearch.kernels import chunk_decay


class Honest(nn.Module):
    """Linear attention with one head and no normaliser."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x, state=None):
        q, k, v = self.qkv(x)[:, :, None].chunk(3, dim=-1)  # [B, T, 1, D]
        past = None if state is None else state["memory"]
        mixed, memory = chunk_decay(q, k, v, initial_state=past)
        return self.out(mixed[:, :, 0]) / x.shape[-1] ** 0.5, {"memory": memory}


def check_cheat(make: Callable[[], object], first: str, failing: set[str]) -> None:
    """All gates stop it at `first`; each of `failing` fails it alone, and no other gate does.

    `make` gives a fresh probe: a cheat may remember.
    """
    config = GateConfig()
    last = run_gates(make(), config, seed=11)[-1]
    assert (last.gate, last.passed) == (first, False)
    assert last.reason is not None
    assert last.reason.endswith(".")
    alone = {
        name
        for name, gate in GATES.items()
        if run_gates(make(), config, seed=11, gates={name: gate})[0].passed is False
    }
    assert alone == failing
    without = {name: gate for name, gate in GATES.items() if name not in failing}
    assert all(r.passed is not False for r in run_gates(make(), config, seed=11, gates=without))
