"""What a search says in the end: claims with intervals, and no more than was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from linearch.db import StatisticRow
from linearch.finding_lines import curse_lines, ranking_lines, verdict_lines


def ranking(value: float | None, low: float | None, **detail: Any) -> list[StatisticRow]:
    shared = {
        **{"n_pruned": 8, "n_drawn": 1, "top": 4, "n_effective": 21.0},
        **{"verdict": "ranks", "n_needed": None, "pruner": "asha"},
        **detail,
    }
    return [
        StatisticRow(
            rung=0,
            value=value,
            low=low,
            high=None if value is None else 0.95,
            n=21,
            detail={"coefficient": coefficient, "population": population, **shared},
        )
        for population in ("all", "candidates")
        for coefficient in ("spearman", "kendall", "top_recall")
    ]


def comparison(
    name: str, baseline: str, delta: float, verdict: str = "", *, is_fresh: bool = True
) -> StatisticRow:
    return StatisticRow(
        architecture_id=name,
        rung=1,
        value=delta,
        n=2,
        detail={
            "name": name,
            "baseline": baseline,
            "baseline_bpb": {"mamba2": 2.3, "gla": 2.6}[baseline],
            "is_fresh": is_fresh,
            "is_better": verdict == "better",
            "is_worse": verdict == "worse",
            "n_candidates": 16,
            "n_comparisons": 2 if is_fresh else 32,
            "seeds_needed": 12 if delta < 0 else None,
        },
    )


def test_a_ranking_comes_with_its_intervals_and_with_who_stood_for_the_pruned() -> None:
    first, second = ranking_lines(ranking(0.88, 0.7))
    assert "Spearman 0.88 (95 % 0.70 to 0.95)" in first
    assert "Kendall" in first
    assert "best 4 found" in first
    assert "1 of them drawn by lot from the 8 pruned" in first
    assert "candidates alone" in second


@pytest.mark.parametrize(
    ("pruner", "knob"),
    [
        ("asha", "a higher ladder.promote_fraction"),
        ("successive_halving", "a lower ladder.reduction_factor"),
        ("hyperband", "a lower ladder.reduction_factor"),
        ("wilcoxon", "a lower ladder.wilcoxon_p"),
    ],
)
def test_a_rung_that_does_not_rank_is_flagged_with_what_its_pruner_heeds(
    pruner: str, knob: str
) -> None:
    lines = list(ranking_lines(ranking(0.1, -0.1, verdict="does not rank", pruner=pruner)))
    assert "WARNING: Rung 0 does not rank" in lines[-1]
    assert "ladder.rung_tokens" in lines[-1]
    assert knob in lines[-1]


def test_a_rung_of_which_too_little_is_known_is_no_rung_that_does_not_rank() -> None:
    found = ranking(0.8, -0.2, verdict="too few to say", n_needed=12, n_effective=4.4)
    said = list(ranking_lines(found))[-1]
    assert said == (
        "  Too few to say whether rung 0 ranks: at 0.80 about 12 that weigh alike would decide; "
        "the 21 count as 4, since few stand for many (ladder.random_promote_fraction draws more)."
    )
    found = ranking(0.31, 0.1, verdict="too few to say")
    assert "no number within reach would decide." in list(ranking_lines(found))[-1]


def test_of_an_older_store_nothing_is_concluded_that_it_did_not_judge() -> None:
    older = ranking(0.8, -0.2, foretells=False)
    for row in older:
        del (row.detail or {})["verdict"]
    assert not any("rank:" in line or "Too few" in line for line in ranking_lines(older))


def test_without_a_measured_pruned_one_it_says_so() -> None:
    line = next(ranking_lines(ranking(0.9, 0.5, n_drawn=0)))
    assert "none of the 8 pruned was measured there" in line


def test_a_ranking_that_was_not_measured_is_no_number() -> None:
    assert list(ranking_lines(ranking(None, None))) == [
        "How well rung 0 ranks is not measured: 21 reached the next."
    ]


def test_the_curse_is_said_of_the_mean_over_the_elite() -> None:
    rows = [
        StatisticRow(architecture_id="a", value=-0.05, n=2),
        StatisticRow(value=-0.04, low=-0.1, high=0.02, n=2),
    ]
    (line,) = curse_lines(rows)
    assert "best 2 candidates" in line
    assert "-0.040 bits per byte (95 % -0.100 to +0.020)" in line


def test_a_verdict_names_whom_it_beats_and_how_many_seeds_would_decide_the_rest() -> None:
    rows = [
        comparison("A", "gla", -0.3, "better"),
        comparison("A", "mamba2", -0.02),
        comparison("B", "gla", -0.1, is_fresh=False),
        comparison("B", "mamba2", 0.1, is_fresh=False),
    ]
    verdict, others, none = verdict_lines(rows)
    assert "A by 2 fresh seeds" in verdict
    assert "truly better than gla" in verdict
    assert "undecided against mamba2 (-0.020, 12 seeds each would decide)" in verdict
    assert "Of 1 candidate with one score, 0 are truly better" in others
    assert "all 16 tried (32 comparisons)" in others
    assert none.startswith("No candidate is truly better than every baseline. A against mamba2")
    assert "about 12 seeds" in none


def test_it_is_said_with_whom_the_seeds_were_paired_and_what_the_windows_say() -> None:
    windows = {"delta": -0.02, "low": -0.03, "high": -0.01}
    more = {"is_paired": True, "windows": windows, "n_windows": 384}
    rows = [comparison("A", "gla", -0.3, "better"), comparison("A", "mamba2", -0.02)]
    rows[1] = replace(rows[1], detail={**(rows[1].detail or {}), **more})
    verdict, on_windows, _ = verdict_lines(rows)
    assert "corrected for 2 comparisons; seed by seed with mamba2)" in verdict
    assert on_windows == (
        "  Against mamba2 on the same 384 windows: -0.020 (95 % -0.030 to -0.010), "
        "which holds for these weights and not for other seeds."
    )


def test_a_winner_over_every_baseline_is_named() -> None:
    rows = [comparison("A", "gla", -0.3, "better"), comparison("A", "mamba2", -0.2, "better")]
    assert list(verdict_lines(rows))[-1] == "Truly better than every baseline: A."


def test_what_is_worse_gets_no_advice_to_try_more_seeds() -> None:
    rows = [comparison("A", "mamba2", 0.1)]
    assert "more seeds would not help" in list(verdict_lines(rows))[-1]


def test_nothing_to_compare_is_said() -> None:
    (line,) = verdict_lines([])
    assert "No candidate can be compared" in line
