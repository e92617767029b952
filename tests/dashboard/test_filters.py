"""The leaderboard's filters, as values and as widgets."""

from __future__ import annotations

from typing import Any

import pytest

from linearch.dashboard.filters import Filters
from linearch.db import LeaderboardRow


def test_no_choice_lets_everything_through(rows: tuple[LeaderboardRow, ...]) -> None:
    assert Filters().apply(rows) == list(rows)


def test_every_word_of_the_search_must_occur_somewhere(rows: tuple[LeaderboardRow, ...]) -> None:
    row = next(row for row in rows if row.origin == "grammar")
    word = row.motivation.split()[0]
    assert row in Filters(text=f"{word.upper()} {row.name}").apply(rows)
    assert Filters(text=f"{row.name} nosuchword").apply(rows) == []


@pytest.mark.parametrize(
    ("filters", "name", "value"),
    [
        (Filters(states=("failed",)), "state", "failed"),
        (Filters(rungs=(0,)), "rung", 0),
        (Filters(origins=("llm",)), "origin", "llm"),
    ],
)
def test_a_choice_keeps_what_was_chosen_and_nothing_else(
    rows: tuple[LeaderboardRow, ...], filters: Filters, name: str, value: object
) -> None:
    shown = filters.apply(rows)
    assert shown == [row for row in rows if getattr(row, name) == value]
    assert shown


def test_a_reference_is_no_baseline_to_the_filter(rows: tuple[LeaderboardRow, ...]) -> None:
    shown = Filters(origins=("reference",)).apply(rows)
    assert [row.name for row in shown] == ["softmax_attention"]


def test_pinned_baselines_come_first_and_keep_the_order(rows: tuple[LeaderboardRow, ...]) -> None:
    shown = Filters(pin_baselines=True).apply(rows)
    assert shown == [row for row in rows if row.is_baseline] + [
        row for row in rows if not row.is_baseline
    ]


def test_the_widgets_filter_both_tables(app: Any) -> None:
    app.test.multiselect(key="origins").set_value(["llm"]).run()
    scored, unscored = (app.test.dataframe[i].value for i in (0, 1))
    assert list(scored["by"].map(tuple)) == [("llm",)]
    assert list(unscored["name"]) == ["FileReader"]


def test_filters_survive_a_change_of_the_rows_and_a_visit_elsewhere(app: Any, run: Any) -> None:
    app.test.text_input(key="search").set_value("deltanet").run()
    app.test.multiselect(key="states").set_value(["measured"]).run()
    run.add_measured(2.2)
    app.open("progress.py")
    page = app.open("leaderboard.py")
    assert page.text_input(key="search").value == "deltanet"
    assert page.multiselect(key="states").value == ["measured"]
    assert set(page.dataframe[0].value["name"]) == {"deltanet", "gated_deltanet"}


def test_filters_that_let_nothing_through_say_so(app: Any) -> None:
    app.test.text_input(key="search").set_value("nosuchword").run()
    assert "No scored architecture passes these filters." in app.words()
    assert not app.test.exception
