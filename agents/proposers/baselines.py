"""Known architectures as proposals: they take the candidates' path into the same tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...errors import ConfigError
from ...search_space.grammar import KNOWN, family
from ...search_space.library import BASELINES, baseline_source
from .proposal import Proposal


def baseline_proposals(names: Iterable[str]) -> Iterator[tuple[Proposal, bool]]:
    """Each named baseline with whether trusted code marks it as a reference mixer."""
    for name in names:
        if name not in BASELINES:
            known = ", ".join(BASELINES)
            raise ConfigError(f"There is no baseline {name!r}; known are {known}.")
        baseline = BASELINES[name]
        proposal = Proposal(
            name=name,
            motivation=f"{baseline.title} (arXiv {baseline.paper}): {baseline.recurrence}",
            expectation="a published architecture, measured on the candidates' path",
            source=baseline_source(name),
            origin="baseline",
            family=family(KNOWN[name]) if name in KNOWN else None,
        )
        yield proposal, baseline.is_reference
