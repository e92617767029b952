"""The offline proposers: spread at the start, never a repeat, parents recorded, reproducible."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from linearch.agents.proposers.grammar import START_FAMILIES, GrammarProposer
from linearch.agents.proposers.proposal import Evidence, Measured, Proposal, Proposer
from linearch.agents.proposers.random_control import RandomProposer
from linearch.errors import ProposalError
from linearch.search_space.grammar import KNOWN, Genome, Space, family
from linearch.search_space.source_check import check_source

OBJECTIVES = ("val_bpb", "state_bytes")
NOTHING = Evidence(candidates=(), baselines=(), objectives=OBJECTIVES)
both_proposers = pytest.mark.parametrize("kind", [GrammarProposer, RandomProposer])


def measured(name: str, genome: dict[str, Any] | None, origin: str = "grammar") -> Measured:
    score = random.Random(name).uniform(2.5, 3.0)
    return Measured(
        id=f"id of {name}",
        name=name,
        motivation="",
        source="",
        origin=origin,
        state="measured",
        reason=None,
        genome=genome,
        rung=1,
        metrics={"val_bpb": score - 0.3, "state_bytes": 4096.0},
        rung_0_val_bpb=score,
    )


BASELINES = tuple(measured(name, None, "baseline") for name in [*KNOWN, "softmax_attention"])


def search(proposer: Proposer, n: int, evidence: Evidence = NOTHING) -> list[Proposal]:
    """`n` proposals, each measured before the next is asked for."""
    proposals: list[Proposal] = []
    for index in range(n):
        proposals.append(proposer.propose(evidence, index))
        row = measured(f"candidate {index}", proposals[-1].genome)
        evidence = replace(evidence, candidates=(*evidence.candidates, row))
    return proposals


def families(proposals: list[Proposal]) -> set[str]:
    return {family(Genome.from_dict(proposal.genome or {})) for proposal in proposals}


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_candidates_cover_at_least_five_families(seed: int) -> None:
    evidence = replace(NOTHING, baselines=BASELINES)
    proposals = search(GrammarProposer(seed=seed, n_layers=2), 16, evidence)
    assert len(families(proposals[:START_FAMILIES])) == START_FAMILIES >= 5
    assert len(families(proposals)) >= 5


@both_proposers
def test_sources_are_distinct_and_pass_the_check(kind: Callable[..., Proposer]) -> None:
    proposals = search(kind(seed=0, n_layers=2), 30, replace(NOTHING, baselines=BASELINES))
    assert len({check_source(proposal.source).normalised_hash for proposal in proposals}) == 30


@both_proposers
def test_a_proposal_is_determined_by_seed_index_and_evidence(
    kind: Callable[..., Proposer],
) -> None:
    evidence = replace(NOTHING, baselines=BASELINES)
    for index in (0, 9, 10, 11, 12):
        one = kind(seed=5, n_layers=2).propose(evidence, index)
        assert one == kind(seed=5, n_layers=2).propose(evidence, index)
        assert one.genome != kind(seed=6, n_layers=2).propose(evidence, index).genome
        assert one.genome != kind(seed=5, n_layers=2).propose(evidence, index + 100).genome


def test_all_three_ways_of_drawing_are_used_and_parents_are_recorded() -> None:
    evidence = replace(NOTHING, baselines=BASELINES)
    proposals = search(GrammarProposer(seed=0, n_layers=2), 40, evidence)
    kinds = Counter(tuple(kind for _, kind in proposal.parents) for proposal in proposals)
    assert set(kinds) == {(), ("mutation",), ("crossover", "crossover")}
    parents = {parent for proposal in proposals for parent, _ in proposal.parents}
    assert any(parent in {row.id for row in BASELINES} for parent in parents)
    assert any(parent.startswith("id of candidate") for parent in parents)


def test_a_mutation_says_what_it_changes() -> None:
    proposer = GrammarProposer(seed=0, n_layers=2)
    evidence = replace(NOTHING, baselines=BASELINES)
    proposals = [proposer.propose(evidence, index) for index in range(6, 40)]
    mutation = next(p for p in proposals if p.parents and p.parents[0][1] == "mutation")
    parent = mutation.parents[0][0].removeprefix("id of ")
    assert mutation.motivation.startswith(f"Changes {parent}: ")


def test_a_genome_of_the_run_or_of_a_baseline_is_never_proposed_again() -> None:
    """With one parent and many of its neighbours taken, mutations reach further."""
    space, parent = Space(n_layers=2), KNOWN["gated_deltanet"]
    rng = random.Random(0)
    near = {space.mutate(parent, rng, n_genes=1) for _ in range(300)}
    taken = tuple(
        replace(
            measured(str(i), genome.to_dict()), state="rejected", rung=None, rung_0_val_bpb=None
        )
        for i, genome in enumerate(near)
    )
    baseline = tuple(row for row in BASELINES if row.name == "gated_deltanet")
    evidence = replace(NOTHING, candidates=taken, baselines=baseline)
    for index in range(10, 25):
        proposal = GrammarProposer(seed=0, n_layers=2).propose(evidence, index)
        assert Genome.from_dict(proposal.genome or {}) not in near | {parent}


@both_proposers
def test_a_used_up_space_is_a_proposal_error(
    kind: Callable[..., Proposer], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = KNOWN["gla"]
    monkeypatch.setattr(Space, "sample", lambda self, rng, **fixed: only)
    evidence = replace(NOTHING, candidates=(measured("all", only.to_dict()),))
    with pytest.raises(ProposalError, match="no new genome"):
        kind(seed=0, n_layers=2).propose(evidence, 0)


@both_proposers
def test_candidates_without_a_genome_are_passed_over(kind: Callable[..., Proposer]) -> None:
    evidence = replace(NOTHING, candidates=(measured("from a model", None, origin="llm"),))
    assert kind(seed=0, n_layers=2).propose(evidence, 20).genome is not None


@both_proposers
def test_nothing_is_repaired(kind: Callable[..., Proposer]) -> None:
    proposer = kind(seed=0, n_layers=2)
    assert proposer.repair(proposer.propose(NOTHING, 0), "causality", "it leaks") is None


def test_the_control_arm_learns_nothing_from_scores() -> None:
    rows = tuple(measured(str(i), KNOWN["gla"].to_dict()) for i in range(3))
    proposer = RandomProposer(seed=0, n_layers=2)
    proposal = proposer.propose(replace(NOTHING, candidates=rows), 4)
    worse = tuple(replace(row, rung_0_val_bpb=9.0) for row in rows)
    assert proposal == proposer.propose(replace(NOTHING, candidates=worse), 4)
    assert proposal.parents == ()
    assert proposal.origin == "random"
