"""One number for an architecture: ASI-Arch's formulas with their failure cases mended."""

from __future__ import annotations

import math
import random

import pytest

from linearch.agents.board import Board, Candidate, Trial, TrialKey
from linearch.agents.fitness import (
    FITNESS,
    Yardstick,
    chances_of,
    check_fitness,
    fitness_of,
    measure_yardstick,
)
from linearch.agents.proposers.proposal import Measured
from linearch.agents.selection import choose_parents, fittest_first
from linearch.config import RecallConfig
from linearch.errors import ConfigError

BASE = Yardstick(
    means={"val_bpb": 4.575, "recall_mqar": 0.224},
    sds={"val_bpb": 0.02},
    chances={"recall_mqar": 0.03},
)
BOTH = ("val_bpb", "recall_mqar")


def asi_arch(loss: float | None, bench: float | None) -> float | None:
    metrics = {"val_bpb": loss, "recall_mqar": bench}
    return fitness_of("asi-arch", metrics, BASE, BOTH)


def published_code(loss: float, bench: float) -> float:
    """ASI-Arch's candidate_manager.py with its own constants, less the judge's term."""

    def score(delta: float, window: float) -> float:
        return 1 / (1 + math.exp(-6 * max(-1, min(1, delta / window))))

    return score(4.575 - loss, 0.4575) + score(bench - 0.224, 0.0224)


@pytest.mark.parametrize(("loss", "bench"), [(4.575, 0.224), (4.3772, 0.226), (4.7, 0.21)])
def test_the_composite_as_coded_equals_theirs(loss: float, bench: float) -> None:
    assert asi_arch(loss, bench) == pytest.approx(published_code(loss, bench))


def test_a_missing_log_is_the_best_there_and_nothing_here() -> None:
    assert published_code(0.0, 0.224) > published_code(4.2, 0.224)
    for missing in (None, math.nan):
        assert asi_arch(missing, 0.224) is None
        assert asi_arch(4.5, missing) is None


def test_what_is_too_far_from_the_baseline_on_either_side_is_refused() -> None:
    assert asi_arch(4.575 * 0.89, 0.224) is None
    assert asi_arch(4.575 * 1.11, 0.224) is None
    assert asi_arch(4.5, 0.224 * 0.89) is None
    assert asi_arch(4.5, 0.224 * 2) is not None  # of the benchmark only the lower side


def test_the_composite_as_published_is_a_mean_of_plain_sigmoids() -> None:
    metrics = {"val_bpb": 4.575 * 0.95, "recall_mqar": 0.224 * 1.2}
    found = fitness_of("asi-arch-paper", metrics, BASE, BOTH)
    expected = (1 / (1 + math.exp(-0.05)) + 1 / (1 + math.exp(-0.2))) / 2
    assert found == pytest.approx(expected)


def near_chance(name: str, recall: float, base: float) -> float | None:
    """With the baseline's own loss, which is half a credit."""
    means = {"val_bpb": 4.575, "recall_mqar": base}
    yardstick = Yardstick(means=means, sds={}, chances={"recall_mqar": 0.03})
    return fitness_of(name, {"val_bpb": 4.575, "recall_mqar": recall}, yardstick, BOTH)


@pytest.mark.parametrize("base", [0.027, 0.03, 0.09])
@pytest.mark.parametrize("recall", [0.0, 0.027, 0.03])
def test_recall_at_chance_or_below_gives_no_credit_whatever_the_baselines_is(
    recall: float, base: float
) -> None:
    assert near_chance("asi-arch-above-chance", recall, base) == pytest.approx(0.5)


def test_a_gain_of_a_tenth_near_chance_is_full_credit_as_coded_and_next_to_none_above_chance() -> (
    None
):
    assert near_chance("asi-arch", 0.033, 0.03) == pytest.approx(0.5 + 0.9975, abs=1e-3)
    found = near_chance("asi-arch-above-chance", 0.033, 0.03)
    assert found == pytest.approx(0.5, abs=0.03)


def test_recall_well_above_chance_and_baseline_gives_all_of_its_credit() -> None:
    found = near_chance("asi-arch-above-chance", 0.9, 0.3)
    assert found == pytest.approx(0.5 + 1 / (1 + math.exp(-6)))
    assert near_chance("asi-arch-above-chance", 0.3, 0.9) is None


def test_more_recall_is_never_less_credit_above_chance() -> None:
    credits = [near_chance("asi-arch-above-chance", share / 100, 0.05) for share in range(101)]
    known = [credit for credit in credits if credit is not None]
    assert len(known) == len(credits)
    assert known == sorted(known)


def test_chance_is_that_of_the_tasks_at_their_own_sizes() -> None:
    sizes = {"mqar": {"vocab_size": 128}}
    found = chances_of(RecallConfig(tasks=("mqar", "parity"), sizes=sizes))
    assert found == {"recall_mqar": 1 / 64, "recall_parity": 0.5}


def test_parents_are_measured_by_the_baselines_recall_as_rows_are() -> None:
    recall = {"recall_mqar": 0.03}
    board = Board(
        seed=0,
        n_rungs=1,
        objectives=BOTH,
        fitness="asi-arch-above-chance",
        noise_baseline="gla",
        chances=recall,
    )
    for name, origin in (("gla", "baseline"), ("mine", "grammar")):
        board.add(measured(name, origin))
    (mine,) = board.evidence().candidates
    assert mine.fitness == pytest.approx(1.0)  # twice half a credit


def measured(name: str, origin: str) -> Candidate:
    """With the same loss and recall, whoever it is."""
    scores = (("corpus", {"val_bpb": 3.0}), ("mqar", {"recall_mqar": 0.5}))
    keys = {TrialKey(task=task, rung=0, seed=0, learning_rate=0.1): found for task, found in scores}
    return Candidate(
        id=name,
        name=name,
        motivation="",
        source="",
        origin=origin,
        pattern="L",
        is_reference=False,
        genome=None,
        parent_ids=(),
        state="measured",
        trials={
            key: Trial(id=key.task, key=key, tokens=1, state="done", metrics=dict(found))
            for key, found in keys.items()
        },
    )


def test_recall_counts_only_where_it_is_an_objective() -> None:
    metrics = {"val_bpb": 4.575, "recall_mqar": None}
    assert fitness_of("asi-arch", metrics, BASE, ("val_bpb",)) == pytest.approx(0.5)


def test_noise_units_are_deviations_of_the_baselines_seeds() -> None:
    seeds = [
        {"val_bpb": 2.50, "tokens_per_s": 100.0, "state_bytes": 64.0, "recall_mqar": None},
        {"val_bpb": 2.54, "tokens_per_s": 120.0, "state_bytes": 64.0, "recall_mqar": None},
    ]
    yardstick = measure_yardstick(seeds, {})
    metrics = {"val_bpb": 2.46, "tokens_per_s": 130.0, "state_bytes": 1.0}
    alone = fitness_of("noise-units", metrics, yardstick, ("val_bpb", "state_bytes"))
    assert alone == pytest.approx(0.06 / yardstick.sds["val_bpb"])
    both = fitness_of("noise-units", metrics, yardstick, ("val_bpb", "tokens_per_s"))
    assert both == pytest.approx(alone + 20 / yardstick.sds["tokens_per_s"])
    assert fitness_of("noise-units", {"val_bpb": None}, yardstick, ("val_bpb",)) is None


def test_without_repeated_seeds_there_are_no_noise_units() -> None:
    yardstick = measure_yardstick([{"val_bpb": 2.5}], {})
    assert fitness_of("noise-units", {"val_bpb": 2.4}, yardstick, ("val_bpb",)) is None


def test_pareto_has_no_number() -> None:
    assert fitness_of("pareto", {"val_bpb": 2.4}, BASE, BOTH) is None


@pytest.mark.parametrize("name", FITNESS)
def test_no_baseline_no_number(name: str) -> None:
    nothing = Yardstick(means={}, sds={})
    assert fitness_of(name, {"val_bpb": 2.4}, nothing, ("val_bpb",)) is None


def test_a_fitness_that_has_no_use_for_the_objectives_is_refused() -> None:
    check_fitness("asi-arch", ("val_bpb",))
    with pytest.raises(ConfigError, match="choose from pareto, noise-units"):
        check_fitness("beauty", ("val_bpb",))
    with pytest.raises(ConfigError, match="add 'val_bpb'"):
        check_fitness("asi-arch", ("state_bytes",))


def row(name: str, fitness: float | None) -> Measured:
    return Measured(
        id=name,
        name=name,
        motivation="",
        source="",
        origin="grammar",
        state="measured",
        reason=None,
        genome=None,
        rung=1,
        metrics={"val_bpb": 1.0},
        rung_0_val_bpb=1.0,
        fitness=fitness,
    )


def test_parents_are_chosen_by_the_fitness_and_none_without_one() -> None:
    rows = [row("worst", 0.1), row("rejected", None), row("best", 2.0), row("good", 1.5)]
    assert [found.id for found in fittest_first(rows)] == ["best", "good", "worst"]
    rng = random.Random(0)
    chosen = [
        choose_parents(rows, ["val_bpb"], 1, rng, fitness="asi-arch")[0].id for _ in range(100)
    ]
    assert chosen.count("best") > chosen.count("worst")
    assert "rejected" not in chosen
