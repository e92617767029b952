"""A genome is one valid choice per gene; it survives JSON and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
import random
import typing

import pytest

from linearch.search_space.grammar import GENES, KNOWN, Genome, Space, changes, family
from linearch.search_space.library import BASELINES

GATED_DELTANET = KNOWN["gated_deltanet"]


def test_the_fields_name_exactly_the_choices_of_each_gene() -> None:
    hints = typing.get_type_hints(Genome)
    fields = [field.name for field in dataclasses.fields(Genome)]
    assert fields == list(GENES)
    for gene, choices in GENES.items():
        literals = [hint for hint in (hints[gene], *typing.get_args(hints[gene]))]
        named = {value for hint in literals for value in typing.get_args(hint)}
        named = {value for value in named if isinstance(value, str | int)}
        assert named == set(choices), gene


def test_a_genome_survives_json() -> None:
    space = Space(n_layers=4)
    for seed in range(50):
        genome = space.sample(random.Random(seed))
        assert Genome.from_dict(json.loads(json.dumps(genome.to_dict()))) == genome


def test_an_unknown_gene_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"'decays'; did you mean 'decay'\?"):
        Genome.from_dict({**GATED_DELTANET.to_dict(), "decays": "scalar"})


def test_a_missing_gene_is_an_error() -> None:
    genes = GATED_DELTANET.to_dict()
    del genes["bonus"]
    with pytest.raises(ValueError, match="lacks bonus"):
        Genome.from_dict(genes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "tied"},  # without a decay per channel
        {"normaliser": "sum"},  # with a delta update
        {"qk_norm": "none"},  # a delta step of a long key is no contraction
        {"decay_form": None},
        {"mix": "sum"},  # without a second branch
        {"conv_over": None},
        {"decay": "sometimes"},
    ],
)
def test_genes_that_do_not_go_together_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="does not go with"):
        dataclasses.replace(GATED_DELTANET, **wrong)


def test_oja_has_no_decay_or_a_scalar_one() -> None:
    decays = {decay for update, decay in Space(n_layers=2).families() if update == "oja"}
    assert decays == {"none", "scalar"}


def test_a_family_is_named_by_update_and_decay() -> None:
    assert family(GATED_DELTANET) == "gated delta, scalar decay"
    assert family(KNOWN["deltanet"]) == "delta, no decay"
    assert family(KNOWN["gla"]) == "additive, channel decay"


def test_changes_name_the_genes_that_differ() -> None:
    child = dataclasses.replace(GATED_DELTANET, output_gate="none")
    assert changes(GATED_DELTANET, child) == [("output_gate", "silu", "none")]


def test_known_genomes_stand_for_the_linear_baselines() -> None:
    linear = {name for name, baseline in BASELINES.items() if not baseline.is_reference}
    assert set(KNOWN) == linear
