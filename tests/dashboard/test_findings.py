"""The page that says who is truly better, and whether the rungs rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from linearch.db import StatisticRow, Store


@pytest.fixture
def measured_again(run: Any, store: Store) -> Any:
    """The run after its best candidate got two fresh seeds, which were less lucky."""
    rows = store.queries.leaderboard(run.run_id)
    best = next(row for row in rows if not row.is_baseline and row.val_bpb is not None)
    for seed, val_bpb in ((1, 2.43), (2, 2.45)):
        for rung, tokens in enumerate((131_072, 524_288)):
            trial = store.enqueue_trial(
                run.run_id,
                best.id,
                task="corpus",
                rung=rung,
                tokens=tokens,
                seed=seed,
                learning_rate=best.learning_rate or 0.0,
                purpose="fresh",
            )
            run.finish(trial.id, run.done(val_bpb + 0.45 * (1 - rung)))
    run.refresh()
    return run


def test_every_candidate_is_compared_with_every_baseline_that_competes(app: Any) -> None:
    table = app.open("findings.py").dataframe[0].value
    assert set(table["verdict"]) == {"undecided"}  # three seeds cannot say it of so many
    assert "softmax_attention" not in set(table["baseline"])
    assert len(table) == 10 * 7


def test_fresh_seeds_alone_speak_for_what_was_measured_again(measured_again: Any, app: Any) -> None:
    page = app.open("findings.py")
    table = page.dataframe[0].value
    assert table["fresh"].all()
    assert set(table["seeds"]) == {2}
    verdicts = dict(zip(table["baseline"], table["verdict"], strict=True))
    assert (verdicts["linear_attention"], verdicts["gated_deltanet"]) == ("better", "undecided")
    assert "corrected for 7 comparisons" in app.words()
    page.toggle(key="fresh").set_value(False).run()
    assert len(page.dataframe[0].value) == 10 * 7


def test_the_winners_curse_is_a_number(measured_again: Any, app: Any) -> None:
    app.open("findings.py")
    assert "**−0.060** bits" in app.words()  # 2.38 at first, 2.44 after


def test_each_rungs_ranking_is_shown_with_its_intervals(app: Any) -> None:
    page = app.open("findings.py")
    ranking = page.dataframe[1].value
    assert set(ranking["measure"]) == {"Spearman", "Kendall τ-b", "top fifth found"}
    assert set(ranking["rungs"]) == {"0 → 1"}
    assert "none was measured on the next rung" in app.words()
    assert not page.warning


def test_a_rung_that_does_not_rank_is_warned_of_and_one_of_which_too_little_is_known_is_not(
    run: Any, store: Store, app: Any
) -> None:
    found = store.queries.statistics(run.run_id, "rank_correlation")

    def judged(verdict: str) -> list[StatisticRow]:
        more = {"verdict": verdict, "pruner": "hyperband", "n_needed": 12, "n_effective": 4.0}
        return [replace(row, detail={**(row.detail or {}), **more}) for row in found]

    store.replace_statistics(run.run_id, "rank_correlation", judged("does not rank"))
    (warning,) = {warning.value for warning in app.open("findings.py").warning}
    assert "a lower ladder.reduction_factor" in warning
    store.replace_statistics(run.run_id, "rank_correlation", judged("too few to say"))
    page = app.open("findings.py")
    assert not page.warning
    assert any("about 12 that weigh alike would decide" in info.value for info in page.info)


def test_a_run_that_goes_on_says_when_there_will_be_findings(app: Any, run: Any) -> None:
    new = run.store.create_run({"profile": "cpu"}, {}, seed=1)
    page = app.open("findings.py", run=new)
    assert "computed when it ends" in app.words()
    assert not page.exception
