"""The whole judgement of one source, whatever its convention, with its evidence in words.

No candidate code runs here: the judge's children run it. Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CandidateRejected, PreflightError
from ..search_space.asi_arch import auxiliary_outputs, call_counters, is_asi_arch_source
from ..search_space.contract import DEFAULT_PATTERN
from ..search_space.source_check import check_source
from .results import GateResult, Judgement
from .subject import Convention

if TYPE_CHECKING:
    from .judge import Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """A judgement with every gate asked, and what a reader must know beside it."""

    name: str
    convention: Convention
    device: str
    profile: str
    judgement: Judgement
    notes: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        return self.judgement.is_sound

    @property
    def failures(self) -> tuple[GateResult, ...]:
        return tuple(result for result in self.judgement.results if result.passed is False)

    @property
    def verdict(self) -> str:
        """`sound: …` or `UNSOUND: …`, in one line."""
        if self.is_sound:
            asked = [result for result in self.judgement.results if result.passed is not None]
            left_out = len(self.judgement.results) - len(asked)
            more = f", {left_out} not applicable" if left_out else ""
            return f"{self.name} is sound: {len(asked)} checks passed{more}."
        if not self.failures:
            return f"{self.name} is UNSOUND: nothing could be checked."
        first, *others = self.failures
        also = f" (also failed: {', '.join(map(label, others))})" if others else ""
        return f"{self.name} is UNSOUND by {label(first)}: {first.reason}{also}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        judgement = self.judgement
        return {
            "name": self.name,
            "convention": self.convention,
            "device": self.device,
            "profile": self.profile,
            "is_sound": self.is_sound,
            "verdict": self.verdict,
            "sandbox": judgement.sandbox,
            "wall_s": judgement.wall_s,
            "mlp_width": judgement.mlp_width,
            "n_params": judgement.n_params,
            "state_bytes": judgement.state_bytes,
            "state_bytes_at": judgement.state_bytes_at,
            "gates": [
                {
                    "stage": result.stage,
                    "gate": result.gate,
                    "passed": result.passed,
                    "reason": result.reason,
                    "evidence": result.evidence,
                    "duration_s": result.duration_s,
                }
                for result in judgement.results
            ],
            "notes": list(self.notes),
        }


def convention_of(source: str) -> Convention:
    return "asi-arch" if is_asi_arch_source(source) else "linearch"


def audit_source(
    judge: Judge,
    source: str,
    *,
    name: str,
    device: str,
    profile: str,
    is_reference: bool = False,
) -> Audit:
    """Asks every gate about a source in either convention. `is_reference`: trusted code alone.

    Raises PreflightError where the machinery failed, which says nothing about the source.
    """
    convention = convention_of(source)
    pattern = _pattern(source) if convention == "linearch" else DEFAULT_PATTERN
    judgement = judge.audit(source, pattern, is_reference, convention)
    if judgement.infra_error is not None:
        raise PreflightError(
            f"The audit of {name} could not run here, which says nothing about it: "
            f"{judgement.infra_error}."
        )
    return Audit(
        name=name,
        convention=convention,
        device=device,
        profile=profile,
        judgement=judgement,
        notes=_notes(source) if convention == "asi-arch" else (),
    )


def label(result: GateResult) -> str:
    """A gate's name, with its stage where that is not the first."""
    return result.gate if result.stage == "cpu" else f"{result.gate} ({result.stage})"


def _notes(source: str) -> tuple[str, ...]:
    """What the adapter does to the layer; unreadable sources have none."""
    try:
        auxiliary, counters = auxiliary_outputs(source), call_counters(source)
    except CandidateRejected:
        return ()
    notes = []
    if auxiliary:
        notes.append(f"Returned beside the output and dropped: {', '.join(auxiliary)}.")
    if counters:
        notes.append(
            f"Counts its calls ({', '.join(counters)}): held still but in training steps, since as "
            "written the answer changes from call to call."
        )
    return tuple(notes)


def _pattern(source: str) -> str:
    """The pattern that a readable source names; the source check says what is wrong with others."""
    try:
        return check_source(source).pattern
    except CandidateRejected:
        return DEFAULT_PATTERN
