"""The numbers behind a verdict in words, for tables; what is not known here is shown as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

NOTHING = "–"


class Checked(Protocol):
    """A gate's result, from the judge or from the store."""

    @property
    def gate(self) -> str: ...
    @property
    def passed(self) -> bool | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def evidence(self) -> Mapping[str, Any]: ...


def evidence_in_words(result: Checked) -> str:
    """The reason where a check failed or does not apply, or what was seen where it passed."""
    if result.passed is not True:
        return result.reason or NOTHING
    evidence = result.evidence
    try:
        said = _WORDS.get(result.gate, _as_it_is)(evidence)
    except (KeyError, TypeError, ValueError, IndexError):  # evidence of another version
        said = _as_it_is(evidence)
    return said or NOTHING


def _moved(evidence: Mapping[str, Any]) -> str:
    limit = f" (allowed {evidence['limit']:.2g})" if "limit" in evidence else ""
    return f"moved by at most {evidence['relative']:.2g} of its RMS{limit}"


def _parameters(evidence: Mapping[str, Any]) -> str:
    return (
        f"{evidence['n_params']:,} of {evidence['budget']:,}, with an MLP of "
        f"{evidence['mlp_width']}"
    )


def _state(evidence: Mapping[str, Any]) -> str:
    at = evidence["state_bytes_at"]
    if len(set(at.values())) == 1:
        return f"{next(iter(at.values())):,} bytes at {_list(at)} tokens"
    return "bytes at tokens: " + ", ".join(f"{size:,} at {length}" for length, size in at.items())


def _handover(evidence: Mapping[str, Any]) -> str:
    return f"{_moved(evidence)} in a process that was sent {evidence['state_bytes']:,} bytes"


def _shape(evidence: Mapping[str, Any]) -> str:
    return "rows × tokens: " + ", ".join(f"{rows}×{length}" for rows, length in evidence["sizes"])


def _causality(evidence: Mapping[str, Any]) -> str:
    cuts = evidence["cuts"]
    return f"{_moved(evidence)}, {sum(cuts.values())} cuts at {_list(cuts)} tokens"


def _gradients(evidence: Mapping[str, Any]) -> str:
    still = evidence["still_share"]
    dead = f", {still:.2%} of them still" if still else ""
    return f"finite for all {evidence['n_parameters']} parameters{dead}"


def _buffers(evidence: Mapping[str, Any]) -> str:
    return (
        f"{evidence['n_fixed']:,} fixed numbers beside {evidence['n_trained']:,} trained "
        f"(allowed {evidence['allowed']:,})"
    )


def _streaming(evidence: Mapping[str, Any]) -> str:
    return f"{_moved(evidence)}, state of {evidence['state_bytes']:,} bytes"


def _stability(evidence: Mapping[str, Any]) -> str:
    return (
        f"bfloat16 within {evidence['disagreement']:.2%} of float32 (allowed "
        f"{evidence['limit']:.0%}), finite up to {evidence['inputs'][-1]}"
    )


def _cost(evidence: Mapping[str, Any]) -> str:
    """Exponents between the two largest T."""
    phases, lengths = evidence["phases"], evidence["lengths"]
    parts = [
        f"{what} T^{_exponent(phases[phase][field], lengths):.2f}"
        for phase, field, what in (
            ("forward", "elements", "forward work"),
            ("backward", "elements", "backward"),
            ("backward", "peak_bytes", "peak memory"),
        )
    ]
    return f"{', '.join(parts)} up to {lengths[-1]} tokens"


def _canary(evidence: Mapping[str, Any]) -> str:
    return (
        f"{evidence['bits_eval']:.3f} bits a token on noise of {evidence['floor_bits']:g} "
        f"({evidence['bits_train']:.3f} in train mode)"
    )


def _as_it_is(evidence: Mapping[str, Any]) -> str:
    parts = (f"{key.replace('_', ' ')} {_value(value)}" for key, value in evidence.items())
    return ", ".join(parts)


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parameters": _parameters,
    "state": _state,
    "handover": _handover,
    "shape": _shape,
    "replay": _moved,
    "batch": _moved,
    "causality": _causality,
    "prefix": _moved,
    "gradients": _gradients,
    "buffers": _buffers,
    "streaming": _streaming,
    "stability": _stability,
    "cost": _cost,
    "canary": _canary,
}


def _exponent(counts: list[float], lengths: list[int]) -> float:
    return math.log2(counts[-1] / counts[-2]) / math.log2(lengths[-1] / lengths[-2])


def _list(keys: Mapping[Any, Any]) -> str:
    *most, last = map(str, keys)
    return f"{', '.join(most)} and {last}" if most else last


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return str(value)
