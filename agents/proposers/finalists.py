"""The proposer of a verification: architectures that a search has found, each once, as stored."""

from __future__ import annotations

from ...db import ArchitectureRow, Store
from ...errors import ConfigError
from .proposal import Evidence, NothingLeft, Proposal


class FinalistsProposer:
    """Proposes the architectures of `ids` in their order; raises ConfigError for none or a
    reference, StoreError for one that the store does not hold."""

    concurrency = 1

    def __init__(self, store: Store, ids: tuple[str, ...]) -> None:
        if not ids:
            raise ConfigError(
                "proposer.finalists is empty: name the architectures to verify by their ids."
            )
        self._rows = [store.queries.architecture(id_).architecture for id_ in ids]

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        """The next finalist; raises NothingLeft after the last."""
        del evidence
        if index >= len(self._rows):
            raise NothingLeft("every finalist was proposed")
        return _again(self._rows[index])

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """None: a finalist is verified as it was found."""
        return None


def _again(row: ArchitectureRow) -> Proposal:
    return Proposal(
        name=row.name,
        motivation=f"Found in run {row.run_id} as {row.id}. {row.motivation}",
        expectation=row.expectation,
        source=row.source,
        origin=row.origin,
        genome=row.genome,
        family=row.family,
    )
