"""Every page over a realistic run, without a browser."""

from __future__ import annotations

from typing import Any

import pytest

from linearch.db import LeaderboardRow, Store

N_SCORED = 20


def _row(rows: tuple[LeaderboardRow, ...], **wanted: Any) -> LeaderboardRow:
    return next(
        row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
    )


@pytest.mark.parametrize(
    "script",
    ["leaderboard.py", "architecture.py", "findings.py", "lineage.py", "progress.py", "runs.py"],
)
def test_every_page_renders_without_an_error(app: Any, script: str) -> None:
    page = app.open(script)
    assert not page.exception
    assert not page.error


def test_the_leaderboard_shows_every_scored_row_with_its_trial(app: Any) -> None:
    table = app.test.dataframe[0].value
    assert len(table) == N_SCORED
    assert table["trial"].notna().all()


def test_baselines_come_first_where_they_are_pinned_and_the_page_says_so(app: Any) -> None:
    assert "By rank." in app.words()
    app.test.toggle(key="pin_baselines").set_value(True).run()
    assert app.test.dataframe[0].value["name"].iloc[0] == "gated_deltanet"
    assert "The baselines first, each part by rank." in app.words()


def test_rows_come_in_the_order_of_their_ranks(app: Any) -> None:
    table = app.test.dataframe[0].value
    assert list(table["rank"]) == sorted(table["rank"])
    assert set(table["by"].map(tuple)) >= {("baseline",), ("reference",), ("grammar",), ("llm",)}


def test_rows_within_the_noise_are_marked_as_ties(app: Any) -> None:
    table = app.test.dataframe[0].value
    for rank, group in table.groupby("rank"):
        marks = set(group["tie"])
        assert marks == ({"="} if len(group) > 1 else {""}), f"rank {rank}"
    assert "=" in set(table["tie"])


def test_the_noise_floor_is_said_in_a_sentence(app: Any) -> None:
    assert "3 seeds of `gated_deltanet`" in app.words()


def test_rejected_rows_stand_in_their_own_table_with_gate_and_reason(app: Any) -> None:
    scored, unscored = (app.test.dataframe[i].value for i in (0, 1))
    rejected = unscored[unscored["state"] == "rejected"]
    assert sorted(rejected["gate"]) == ["causality", "causality", "source", "streaming"]
    assert rejected["reason"].notna().all()
    assert not set(unscored["id"]) & set(scored["id"])


def test_an_early_learning_profile_says_so(app: Any) -> None:
    assert "early learning, not capacity" in app.words()


def test_an_architecture_shows_its_code_reasons_gates_and_trials(
    app: Any, rows: tuple[LeaderboardRow, ...], store: Store
) -> None:
    row = _row(rows, origin="llm", state="measured")
    page = app.open("architecture.py", architecture=row.id)
    source = store.architecture(row.id).source
    assert page.title[0].value.replace("\\", "") == row.name
    assert source.strip() in [block.value for block in page.code]
    trials = next(table.value for table in page.dataframe if "wall_s" in table.value)
    assert set(row.trial_ids) <= set(trials["trial"])
    gates = next(table.value for table in page.dataframe if "verdict" in table.value)
    assert set(gates["verdict"]) == {"✓ passed", "– none"}
    assert set(gates["stage"]) == {"cpu", "device", "trained"}
    assert set(gates["sandbox"]) == set(trials["sandbox"]) == {"isolated"}
    absent = gates[gates["verdict"] == "– none"]
    assert list(absent["evidence"]) == ["not applicable: Not asked of a reference mixer."]
    assert "linearch.load_mixer(" in app.words()
    assert f"linearch replay {row.id} --verify" in app.words()


def test_the_changes_are_a_diff_against_the_chosen_parent(
    app: Any, rows: tuple[LeaderboardRow, ...]
) -> None:
    child = next(row for row in rows if row.parents)
    page = app.open("architecture.py", architecture=child.id)
    diff = next(block for block in page.code if block.language == "diff")
    assert f"+++ {child.name}" in diff.value
    other = _row(rows, name="retnet")
    page.selectbox(key=f"against_{child.id}").set_value(other.id).run()
    diff = next(block for block in page.code if block.language == "diff")
    assert diff.value.startswith("--- retnet")


def test_an_architecture_in_quarantine_says_why_and_how_it_is_released(
    app: Any, rows: tuple[LeaderboardRow, ...]
) -> None:
    row = _row(rows, state="quarantined")
    scored, unscored = (app.test.dataframe[i].value for i in (0, 1))
    assert row.id not in set(scored["id"])
    shown = unscored[unscored["id"] == row.id]
    assert "that xz needs" in shown["reason"].item()
    page = app.open("architecture.py", architecture=row.id)
    said = page.warning[0].value.replace("\\", "")
    assert "In quarantine" in said
    assert "0.710 bits per byte" in said
    assert f"linearch audit {row.id} --release" in app.words()
    assert "linearch export" not in app.words()


def test_a_rejected_architecture_says_why(app: Any, rows: tuple[LeaderboardRow, ...]) -> None:
    row = _row(rows, rejected_by="source")
    page = app.open("architecture.py", architecture=row.id)
    assert "source" in page.error[0].value
    assert "os may not be imported" in page.error[0].value
    assert "It was never trained." in app.words()


def test_the_models_calls_are_shown_with_cost_and_text(
    app: Any, rows: tuple[LeaderboardRow, ...]
) -> None:
    row = _row(rows, origin="llm", state="measured")
    page = app.open("architecture.py", architecture=row.id)
    calls = next(table.value for table in page.dataframe if "cost_usd" in table.value)
    assert list(calls["cost_usd"]) == [0.0212]
    next(toggle for toggle in page.toggle if toggle.label.startswith("Texts")).set_value(True).run()
    assert "Write a token mixer" in app.words()


def test_stored_words_are_shown_and_not_interpreted(app: Any, run: Any) -> None:
    row = run.add_candidate()
    hostile = run.store.add_architecture(
        run.run_id,
        name="![x](http://tracker.example/x.png)",
        motivation="**bold** :red[claim] <b>tag</b>",
        expectation="$x$",
        origin="llm",
        source=row.source,
        source_hash="0",
        normalised_hash="0",
        pattern="L",
    )
    page = app.open("architecture.py", architecture=hostile.id)
    assert not page.exception
    assert "![x](http" not in page.title[0].value
    assert "**bold**" not in app.words()


def test_the_funnel_and_the_budget_are_on_the_progress_page(app: Any) -> None:
    page = app.open("progress.py")
    counts = {metric.label: metric.value for metric in page.metric}
    assert counts["proposed"] == "21"
    assert counts["measured"] == "12"
    assert counts["rejected"] == "4"
    assert counts["quarantined"] == "1"
    budget = next(table.value for table in page.dataframe if "budget" in table.value)
    assert budget["limit"].dropna().tolist() == [20]
    events = next(table.value for table in page.dataframe if "event" in table.value)
    assert set(events["event"]) == {"duplicate", "invalid"}


def test_an_unknown_architecture_is_answered_with_a_sentence(app: Any) -> None:
    page = app.open("architecture.py", architecture="NOPE")
    assert "There is no architecture" in page.warning[0].value
    assert not page.exception


def test_the_address_chooses_the_run(app: Any, run: Any) -> None:
    from_before = run.run_id
    newest = run.store.create_run({"profile": "gpu"}, {}, seed=1)
    page = app.open("leaderboard.py")
    assert page.selectbox(key="run").value == newest
    page = app.open("leaderboard.py", run=from_before)
    assert page.selectbox(key="run").value == from_before
    assert len(page.dataframe[0].value) == N_SCORED


def test_the_address_of_an_architecture_is_enough_to_find_its_run(
    app: Any, run: Any, rows: tuple[LeaderboardRow, ...]
) -> None:
    run.store.create_run({"profile": "gpu"}, {}, seed=1)
    page = app.open("architecture.py", architecture=rows[0].id)
    assert page.selectbox(key="run").value == run.run_id


def test_a_finished_run_offers_no_refresh(app: Any, run: Any) -> None:
    assert [toggle.label for toggle in app.test.sidebar.toggle] == ["Auto-refresh"]
    run.end()
    app.test.run()
    assert not app.test.sidebar.toggle
    assert "20 candidates were trained" in app.words().replace("\\", "")


def test_a_change_of_the_store_is_seen_by_the_next_execution(app: Any, run: Any) -> None:
    added = run.add_measured(2.2)
    app.test.run()
    table = app.test.dataframe[0].value
    assert added.name in set(table["name"])
    assert table.loc[table["name"] == added.name, "rank"].item() == 1
