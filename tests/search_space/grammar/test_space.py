"""Every way of drawing a genome stays inside the space; the count agrees with listing."""

from __future__ import annotations

import random

import pytest

from linearch.search_space.grammar import GENES, KNOWN, Genome, Space, changes, family
from linearch.search_space.grammar.genes import options, reads

SPACE = Space(n_layers=4)


def test_rules_read_only_earlier_genes() -> None:
    order = list(GENES)
    for gene in GENES:
        assert all(order.index(name) < order.index(gene) for name in reads(gene))


def test_every_choice_can_be_drawn() -> None:
    rng = random.Random(0)
    drawn = [SPACE.sample(rng).to_dict() for _ in range(800)]
    for gene, choices in GENES.items():
        assert set(choices) <= {genes[gene] for genes in drawn}


@pytest.mark.parametrize("update", list(GENES["update"]))
def test_count_agrees_with_listing_the_first_genes(
    update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shorter list of genes, and with the update fixed, all genomes can be listed."""
    short = {gene: choices for gene, choices in list(GENES.items())[:10]}
    monkeypatch.setattr(
        "linearch.search_space.grammar.space.GENES", {**short, "update": {update: ""}}
    )
    monkeypatch.setattr(
        Space,
        "options",
        lambda self, gene, earlier: (update,) if gene == "update" else options(gene, earlier),
    )

    def listed(earlier: dict[str, object], left: list[str]) -> int:
        if not left:
            return 1
        values = SPACE.options(left[0], earlier)
        return sum(listed({**earlier, left[0]: value}, left[1:]) for value in values)

    assert SPACE.count() == listed({}, list(short))


def test_the_space_holds_millions_of_genomes() -> None:
    assert SPACE.count() > 10_000_000


def test_a_pattern_longer_than_the_model_is_not_drawn() -> None:
    rng = random.Random(0)
    assert {Space(n_layers=2).sample(rng).pattern for _ in range(100)} == {"L", "LA"}


def test_fixed_genes_are_kept() -> None:
    rng = random.Random(0)
    drawn = {family(SPACE.sample(rng, update="oja", decay="scalar")) for _ in range(20)}
    assert drawn == {"gated Oja, scalar decay"}


@pytest.mark.parametrize("parent", list(KNOWN))
def test_a_mutation_of_one_gene_changes_only_it_and_what_hangs_on_it(parent: str) -> None:
    rng = random.Random(parent)
    for _ in range(30):
        child = SPACE.mutate(KNOWN[parent], rng, n_genes=1)
        changed = [gene for gene, _, _ in changes(KNOWN[parent], child)]
        assert changed
        assert all(_hangs_on(gene, changed[0]) for gene in changed[1:])


def _hangs_on(gene: str, root: str) -> bool:
    return any(read == root or _hangs_on(read, root) for read in reads(gene))


def test_a_cross_takes_every_gene_from_a_parent_where_it_fits() -> None:
    rng = random.Random(0)
    one, other = KNOWN["gated_deltanet"], KNOWN["deltanet"]
    for _ in range(30):
        child = SPACE.cross(one, other, rng)
        free = [gene for gene in GENES if not reads(gene)]
        for gene in free:
            assert child.to_dict()[gene] in (one.to_dict()[gene], other.to_dict()[gene])


def test_crossing_a_genome_with_itself_gives_it_back() -> None:
    for genome in KNOWN.values():
        assert SPACE.cross(genome, genome, random.Random(0)) == genome


def test_draws_are_determined_by_the_generator() -> None:
    def draw(seed: int) -> list[Genome]:
        rng = random.Random(seed)
        one, other = SPACE.sample(rng), SPACE.sample(rng)
        return [one, SPACE.mutate(one, rng, 2), SPACE.cross(one, other, rng)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
