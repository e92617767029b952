"""What the dashboard says before there is anything to show: always what to do next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linearch.config import RunConfig
from linearch.db import Store


def test_without_a_store_it_says_what_to_type(empty_app: Callable[[], Any], tmp_path: Path) -> None:
    app = empty_app()
    assert not app.test.exception
    assert "no store" in app.words()
    assert app.test.code[0].value == f"launch-search --store {tmp_path / 'linearch.db'}"


def test_the_default_store_needs_no_option(
    empty_app: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LINEARCH_STORE")
    monkeypatch.chdir(tmp_path)
    assert empty_app().test.code[0].value == "launch-search"


def test_looking_for_a_store_makes_none(empty_app: Callable[[], Any], tmp_path: Path) -> None:
    empty_app()
    assert not list(tmp_path.iterdir())


def test_a_store_without_a_run_says_what_to_type(
    empty_app: Callable[[], Any], tmp_path: Path
) -> None:
    Store.open(tmp_path / "linearch.db").close()
    app = empty_app()
    assert not app.test.exception
    assert "holds no run" in app.words()
    assert app.test.code[0].value.startswith("launch-search")


def test_a_file_that_is_no_store_is_answered_with_a_sentence(
    empty_app: Callable[[], Any], tmp_path: Path
) -> None:
    (tmp_path / "linearch.db").write_text(
        "no database at all, but some other file of a user\n" * 99
    )
    app = empty_app()
    assert not app.test.exception
    assert app.test.error[0].value


@pytest.mark.parametrize(
    "script",
    ["leaderboard.py", "architecture.py", "findings.py", "lineage.py", "progress.py", "runs.py"],
)
def test_every_page_stands_before_the_first_proposal(
    empty_app: Callable[[], Any], tmp_path: Path, script: str
) -> None:
    with Store.open(tmp_path / "linearch.db") as store:
        store.create_run(RunConfig().model_dump(mode="json"), {}, seed=0)
    app = empty_app()
    app.open(script)
    assert not app.test.exception
    assert app.words()


def test_before_the_first_score_the_leaderboard_lists_what_is_proposed(
    empty_app: Callable[[], Any], tmp_path: Path, small_run: Callable[[Store], Any]
) -> None:
    with Store.open(tmp_path / "linearch.db") as store:
        small_run(store).add_candidate()
        app = empty_app()
        assert "No architecture has a score yet" in app.words()
        assert "noise floor is not measured" in app.words()
        assert list(app.test.dataframe[0].value["state"]) == ["proposed"]
