"""The sampler learns from a run's rows: what scored well is drawn more often, what failed less."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from dataclasses import replace

import optuna
import pytest

from linearch.agents.proposers.proposal import Measured
from linearch.agents.studies.steering import steered_genome
from linearch.search_space.grammar import Genome, Space

SPACE = Space(n_layers=2)


def known(n: int, is_better: str) -> list[tuple[Genome, Measured]]:
    """Random genomes; those with the update `is_better` score lower by more than the noise."""
    rng = random.Random(0)
    pairs = []
    for number in range(n):
        genome = SPACE.sample(rng)
        row = Measured(
            id=str(number),
            name=str(number),
            motivation="",
            source="",
            origin="grammar",
            state="measured",
            reason=None,
            genome=genome.to_dict(),
            rung=0,
            rung_0_val_bpb=rng.gauss(2.5 if genome.update == is_better else 3.0, 0.05),
        )
        pairs.append((genome, row))
    return pairs


def drawn_updates(pairs: list[tuple[Genome, Measured]], n: int = 60) -> Counter[str]:
    return Counter(steered_genome(pairs, SPACE, seed).update for seed in range(n))


@pytest.mark.parametrize("better", ["additive", "delta", "oja"])
def test_the_better_value_of_a_gene_is_drawn_far_more_often(better: str) -> None:
    """A quarter of blind draws would have it: more than half of 60 is 4.5 deviations above."""
    assert drawn_updates(known(40, is_better=better))[better] > 30


def test_without_evidence_all_values_are_drawn() -> None:
    counts = drawn_updates([])
    assert len(counts) == 4
    assert max(counts.values()) < 30


def test_what_failed_or_is_still_being_measured_is_drawn_less() -> None:
    """Three with the better update scored well; forty more of it have no score."""
    pairs = known(40, is_better="delta")
    better = [pair for pair in pairs if pair[0].update == "delta"]
    scored = [pair for pair in pairs if pair not in better[3:]]
    rng = random.Random(1)
    unscored = [SPACE.sample(rng, update="delta") for _ in range(40)]
    row = replace(pairs[0][1], rung=None, rung_0_val_bpb=None)
    draws = {"left out": drawn_updates(scored, 30)["delta"]}
    for state in ("rejected", "sound"):
        rows = [(genome, replace(row, state=state)) for genome in unscored]
        draws[state] = drawn_updates([*scored, *rows], 30)["delta"]
    assert draws["rejected"] < 0.6 * draws["left out"]
    assert draws["sound"] < 0.6 * draws["left out"]


def test_a_draw_is_determined_by_seed_and_rows() -> None:
    pairs = known(20, is_better="delta")
    assert steered_genome(pairs, SPACE, seed=3) == steered_genome(pairs, SPACE, seed=3)
    assert len({steered_genome(pairs, SPACE, seed=seed) for seed in range(10)}) > 3


def test_the_sampler_is_silent_and_leaves_optunas_verbosity_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steered_genome(known(20, is_better="delta"), SPACE, seed=0)
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before
