"""The update of the memory: write strength and the call of the kernel that runs the recurrence."""

from __future__ import annotations

from collections.abc import Iterator

from .genome import Genome
from .part import Part, call
from .streams import key_dim

_KERNELS = {
    "additive": "chunk_decay",
    "delta": "chunk_delta",
    "product": "chunk_delta",
    "oja": "chunk_oja",
}


def memory(genome: Genome) -> Part:
    """`o` [B, T, H, V] from q, k, v; the state keeps the memory, float32 [B, H, K, V]."""
    strength = _strength(genome)
    init = list(strength.init)
    forward = list(strength.forward)
    if genome.bonus == "current":
        init.append(f"self.bonus = nn.Parameter(torch.ones(n_heads, {key_dim(genome)}))")
    forward += call(f'o, after["memory"] = {_KERNELS[genome.update]}', *_arguments(genome))
    return Part(init=tuple(init), forward=tuple(forward))


def _arguments(genome: Genome) -> Iterator[str]:
    yield from ("q", "k")
    # Oja's erase is a contraction only for |v| <= 1
    yield "l2_norm(v)" if genome.update == "oja" else "v"
    if genome.update != "additive":
        yield "beta"
    if genome.decay != "none":
        yield "self.log_decay" if genome.decay_form == "fixed" else "log_decay"
    if genome.bonus == "current":
        yield "bonus=self.bonus"
    if genome.normaliser == "sum":
        yield "normalise=True"
    if genome.qk_norm == "l2":  # products of unit vectors need no division by the root of K
        yield "scale=1.0"
    yield 'initial_state=past.get("memory")'


def _strength(genome: Genome) -> Part:
    if genome.strength == "plain":
        return Part()
    per_token = "2 * n_heads" if genome.steps == 2 else "n_heads"
    init = (f"self.strength = nn.Linear(d_model, {per_token})",)
    if genome.update == "additive":
        return Part(init=init, forward=("k = self.strength(x).sigmoid().unsqueeze(-1) * k",))
    double = ["rate=2.0"] if genome.strength == "double" else []
    arguments = ("self.strength(x)", '"sigmoid"', *double, "out_dtype=torch.float32")
    forward = [*call("beta = activation", *arguments)]
    if genome.steps == 2:
        forward.append("beta = beta.unflatten(-1, (2, -1)).flatten(1, 2)  # [B, 2T, H]")
    return Part(init=init, forward=tuple(forward))
