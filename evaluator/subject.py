"""What is judged: a source, how its layers are used, and what trusted code says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..search_space.asi_arch import check_asi_arch_source
from ..search_space.source_check import CheckedSource, check_source

Convention = Literal["linearch", "asi-arch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """`is_reference` and `convention` come from trusted code, never from the source."""

    source: str
    pattern: str = "L"
    is_reference: bool = False
    convention: Convention = "linearch"

    @property
    def can_stream(self) -> bool:
        """A layer in ASI-Arch's convention sees whole sequences alone."""
        return self.convention == "linearch"

    def check(self, max_source_bytes: int) -> CheckedSource:
        """Raises CandidateRejected("source", ...)."""
        if self.convention == "asi-arch":
            return check_asi_arch_source(self.source, max_source_bytes)
        return check_source(self.source, max_source_bytes)

    def probed_layers(self, n_layers: int) -> list[int]:
        """The first and the last layer that hold the mixer."""
        kinds = (self.pattern * n_layers)[:n_layers]
        layers = [i for i, kind in enumerate(kinds) if kind == "L"]
        return sorted({*layers[:1], *layers[-1:]})
