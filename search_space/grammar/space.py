"""Drawing from the space of valid genomes: afresh, near a parent, between two parents."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .genes import GENES, Value, options, reads
from .genome import Genome


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """All valid genomes whose layer pattern fits into `n_layers` layers."""

    n_layers: int

    def options(self, gene: str, earlier: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values open to `gene` after the genes before it; never empty."""
        allowed = options(gene, earlier)
        if gene == "pattern":  # a longer pattern is cut off and repeats a shorter one
            return tuple(value for value in allowed if len(str(value)) <= self.n_layers)
        return allowed

    def sample(self, rng: random.Random, **fixed: Value) -> Genome:
        """A genome drawn gene by gene, each uniformly among its options; `fixed` genes stay."""
        return self.complete(fixed, rng)

    def complete(self, wanted: Mapping[str, Value], rng: random.Random) -> Genome:
        """The genome with every wanted value that its earlier genes allow, the rest drawn."""
        genes: dict[str, Value] = {}
        for gene in GENES:
            allowed = self.options(gene, genes)
            keeps = gene in wanted and wanted[gene] in allowed
            genes[gene] = wanted[gene] if keeps else rng.choice(allowed)
        return Genome.from_dict(genes)

    def mutate(self, parent: Genome, rng: random.Random, n_genes: int) -> Genome:
        """The parent with `n_genes` genes changed, and with them whatever no longer goes."""
        genes = parent.to_dict()
        open_genes = {
            gene: [value for value in self.options(gene, genes) if value != genes[gene]]
            for gene in GENES
        }
        candidates = [gene for gene, others in open_genes.items() if others]
        for gene in rng.sample(candidates, min(n_genes, len(candidates))):
            genes[gene] = rng.choice(open_genes[gene])
        return self.complete(genes, rng)

    def cross(self, one: Genome, other: Genome, rng: random.Random) -> Genome:
        """Each gene from either parent; where that one does not fit, from the other if it does."""
        sides = one.to_dict(), other.to_dict()
        genes: dict[str, Value] = {}
        for gene in GENES:
            allowed = self.options(gene, genes)
            values = [side[gene] for side in rng.sample(sides, 2)]
            fitting = [value for value in values if value in allowed]
            genes[gene] = fitting[0] if fitting else rng.choice(allowed)
        return Genome.from_dict(genes)

    def families(self) -> Iterator[tuple[Value, Value]]:
        """Every valid (update, decay)."""
        for update in self.options("update", {}):
            for decay in self.options("decay", {"update": update}):
                yield update, decay

    def count(self) -> int:
        """How many genomes there are, by walking the genes and forgetting those not read again."""
        order = list(GENES)
        paths: Counter[tuple[tuple[str, Value], ...]] = Counter({(): 1})
        for position, gene in enumerate(order):
            read_later = {name for later in order[position + 1 :] for name in reads(later)}
            longer: Counter[tuple[tuple[str, Value], ...]] = Counter()
            for path, n_ways in paths.items():
                earlier = dict(path)
                for value in self.options(gene, earlier):
                    kept = {**earlier, gene: value}.items()
                    longer[tuple(item for item in kept if item[0] in read_later)] += n_ways
            paths = longer
        return sum(paths.values())
