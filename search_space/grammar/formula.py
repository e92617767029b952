"""The recurrence of a genome, written out for its docstring and for people."""

from __future__ import annotations

from .genome import Genome

_DECAYS = {"none": "", "constant": "a ", "scalar": "a_t ", "channel": "diag(a_t) "}


def recurrence(genome: Genome) -> list[str]:
    """Lines with the update and the read of one head's memory S in R^(K x V)."""
    return [*_update(genome), _read(genome), *_where(genome)]


def _update(genome: Genome) -> list[str]:
    decay = _DECAYS[genome.decay]
    if genome.update == "additive":
        return [f"S_t = {decay}S_(t-1) + {_write_strength(genome)}k_t v_t^T"]
    if genome.update == "delta":
        return [f"S_t = (I - b_t k_t k_t^T) {decay}S_(t-1) + b_t k_t v_t^T"]
    if genome.update == "oja":
        return [f"S_t = {decay}S_(t-1) (I - b_t v_t v_t^T) + b_t k_t v_t^T"]
    return [
        f"R = (I - b_t1 k_t1 k_t1^T) {decay}S_(t-1) + b_t1 k_t1 v_t1^T",
        "S_t = (I - b_t2 k_t2 k_t2^T) R + b_t2 k_t2 v_t2^T",
    ]


def _read(genome: Genome) -> str:
    strength = _write_strength(genome)
    if genome.bonus == "current":
        return f"o_t = (S_(t-1) + diag(u) {strength}k_t v_t^T)^T q_t"
    if genome.normaliser == "sum":
        decay = _DECAYS[genome.decay]
        return f"o_t = S_t^T q_t / (z_t^T q_t), z_t = {decay}z_(t-1) + {strength}k_t"
    return "o_t = S_t^T q_t"


def _write_strength(genome: Genome) -> str:
    return "" if genome.strength == "plain" else "b_t "


def _where(genome: Genome) -> list[str]:
    lines = []
    if genome.key == "tied":
        lines.append("k_t = 1 - a_t")
    if genome.strength != "plain":
        top = 2 if genome.strength == "double" else 1
        lines.append(f"b_t in (0, {top})")
    if genome.update == "oja":
        lines.append("|v_t| = 1")
    return lines
