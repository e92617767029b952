"""The offline proposer: draws genomes, steered by what was measured, and writes them as source.

The first proposals spread over families of update and decay. After them Optuna's sampler, mutation
and crossover of parents take turns by lot; parents come from non-dominated selection over the run's
objectives, baselines among them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import ProposalError
from ...search_space.grammar import (
    KNOWN,
    Genome,
    Space,
    Value,
    changes,
    describe,
    family,
    render,
)
from ..selection import choose_parents
from ..studies.steering import steered_genome
from .proposal import Evidence, Measured, ParentKind, Proposal

START_FAMILIES = 6
_SHARES = {"steer": 0.6, "mutate": 0.2, "cross": 0.2}
_ATTEMPTS = 64  # before the space counts as used up


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A genome and where it came from, in words for its motivation."""

    genome: Genome
    how: str
    parents: tuple[tuple[str, ParentKind], ...] = ()


class GrammarProposer:
    """Proposes genomes of the grammar; deterministic in (seed, index) and the evidence."""

    concurrency = 1

    def __init__(self, *, seed: int, n_layers: int) -> None:
        self._seed = seed
        self._space = Space(n_layers=n_layers)
        self._start = _start_families(self._space, seed)

    def propose(self, evidence: Evidence, index: int) -> Proposal:
        """One mixer whose genome this run has not seen; see `Proposer`."""
        rng = random.Random(f"grammar {self._seed} {index}")
        known = known_genomes(evidence)
        seen = {genome for genome, _ in known}
        method = rng.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        for attempt in range(_ATTEMPTS):
            if index < len(self._start):
                draft = self._start_draft(self._start[index], rng)
            else:
                draft = self._draft(method, known, evidence, rng, attempt)
            if draft.genome not in seen:
                return to_proposal(draft, origin="grammar")
        raise ProposalError(f"The grammar found no new genome in {_ATTEMPTS} attempts.")

    def repair(self, proposal: Proposal, check: str, reason: str) -> Proposal | None:
        """None: a genome is valid as drawn, and what failed is told to the next draw."""
        return None

    def _start_draft(self, opening: tuple[Value, Value], rng: random.Random) -> Draft:
        update, decay = opening
        genome = self._space.sample(rng, update=update, decay=decay)
        return Draft(genome=genome, how="Drawn to open the search in this family.")

    def _draft(
        self,
        method: str,
        known: Sequence[tuple[Genome, Measured]],
        evidence: Evidence,
        rng: random.Random,
        attempt: int,
    ) -> Draft:
        """One try; later attempts at a used-up neighbourhood reach further from the parents."""
        genomes = {row.id: genome for genome, row in known}
        rows = [row for _, row in known]
        parents = choose_parents(rows, evidence.objectives, 2, rng, fitness=evidence.fitness)
        if method == "cross" and len(parents) == 2 and attempt < _ATTEMPTS // 2:
            return self._cross(parents, genomes, rng)
        if method != "steer" and parents:
            return self._mutate(parents[0], genomes, rng, n_genes=rng.choice((1, 2)) + attempt // 8)
        genome = steered_genome(known, self._space, seed=rng.getrandbits(32))
        return Draft(
            genome=genome, how="Drawn by a sampler that learns from the scores of this run."
        )

    def _mutate(
        self, parent: Measured, genomes: dict[str, Genome], rng: random.Random, n_genes: int
    ) -> Draft:
        genome = self._space.mutate(genomes[parent.id], rng, n_genes)
        return Draft(
            genome=genome,
            how=f"Changes {parent.name}: {_spoken_changes(genomes[parent.id], genome)}.",
            parents=((parent.id, "mutation"),),
        )

    def _cross(
        self, parents: Sequence[Measured], genomes: dict[str, Genome], rng: random.Random
    ) -> Draft:
        one, other = parents
        return Draft(
            genome=self._space.cross(genomes[one.id], genomes[other.id], rng),
            how=f"Joins {one.name} with {other.name}.",
            parents=((one.id, "crossover"), (other.id, "crossover")),
        )


def known_genomes(evidence: Evidence) -> list[tuple[Genome, Measured]]:
    """Every row of the run that has a genome; baselines stand as the genomes nearest to them."""
    pairs = []
    for row in (*evidence.baselines, *evidence.candidates):
        if row.genome is not None:
            pairs.append((Genome.from_dict(row.genome), row))
        elif row.origin == "baseline" and row.name in KNOWN:
            pairs.append((KNOWN[row.name], row))
    return pairs


def to_proposal(draft: Draft, origin: str) -> Proposal:
    words = describe(draft.genome)
    return Proposal(
        name=words.name,
        motivation=f"{draft.how} {words.motivation}",
        expectation=words.expectation,
        source=render(draft.genome),
        origin=origin,
        parents=draft.parents,
        genome=draft.genome.to_dict(),
        family=family(draft.genome),
    )


def _spoken_changes(parent: Genome, child: Genome) -> str:
    """Each changed gene in words; genes that no longer apply go without saying."""
    return ", ".join(
        f"{gene.replace('_', ' ')} {after}"
        + (f" instead of {before}" if before is not None else "")
        for gene, before, after in changes(parent, child)
        if after is not None
    )


def _start_families(space: Space, seed: int) -> list[tuple[Value, Value]]:
    """Different families to open with: each update in turn, its decays in an order by lot."""
    rng = random.Random(f"families {seed}")
    by_update: dict[Value, list[Value]] = {}
    for update, decay in space.families():
        by_update.setdefault(update, []).append(decay)
    for decays in by_update.values():
        rng.shuffle(decays)
    turns = [
        (update, decays[turn])
        for turn in range(max(map(len, by_update.values())))
        for update, decays in by_update.items()
        if turn < len(decays)
    ]
    return turns[:START_FAMILIES]
