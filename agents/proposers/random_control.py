"""The control arm: the grammar's space drawn blindly, so that steering has something to beat."""

from __future__ import annotations

import random

from ...errors import ProposalError
from ...search_space.grammar import Space
from .grammar import Draft, known_genomes, to_proposal
from .proposal import Evidence, Proposal

_ATTEMPTS = 64


class RandomProposer:
    """Draws each gene uniformly among its options and learns nothing; never repeats a genome.

    Gene by gene, as the grammar's own first draws, and not uniformly over genomes: most genomes
    are additive updates, only because those combine with more of the other genes.
    """

    concurrency = 1

    def __init__(self, *, seed: int, n_layers: int) -> None:
        self._seed = seed
        self._space = Space(n_layers=n_layers)

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        """One mixer whose genome this run has not seen; see `Proposer`."""
        rng = random.Random(f"random {self._seed} {index}")
        seen = {genome for genome, _ in known_genomes(evidence)}
        for _ in range(_ATTEMPTS):
            genome = self._space.sample(rng)
            if genome not in seen:
                return to_proposal(Draft(genome=genome, how="Drawn blindly."), origin="random")
        raise ProposalError(f"The grammar found no new genome in {_ATTEMPTS} attempts.")

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """None: the control arm takes what it draws."""
        return None
