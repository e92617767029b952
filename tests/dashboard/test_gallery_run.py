"""An imported gallery, which has verdicts and no trials, shows on every page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linearch.agents.gallery import run_import
from linearch.db import Store
from linearch.evaluator.results import GateResult, Judgement

OURS = Path(__file__).parents[1] / "data" / "gallery.json"
NAME = "<script>alert(1)</script> [/red] ../../x"


@pytest.fixture
def store_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery with a sound entry, an unsound one and ones that nobody audited."""
    entries = json.loads(OURS.read_text())
    entries[0]["name"] = NAME
    gallery, file = tmp_path / "gallery.json", tmp_path / "linearch.db"
    gallery.write_text(json.dumps(entries))
    outcome = run_import(gallery, store=str(file), audited=False)
    left_out = GateResult(gate="streaming", passed=None, reason="Its convention has none.")
    leak = GateResult(gate="causality", passed=False, reason="It sees the future.")
    sound = GateResult(gate="batch", passed=True, evidence={"relative": 0.0}, duration_s=0.1)
    with Store.open(file) as store:
        for item, results in zip(outcome.imported, [(sound, left_out), (leak,)], strict=False):
            assert item.row is not None
            store.record_judgement(item.row.id, Judgement(results=results, sandbox="isolated"))
    monkeypatch.setenv("LINEARCH_STORE", str(file))
    return file


@pytest.mark.parametrize(
    "script", ["leaderboard.py", "findings.py", "lineage.py", "progress.py", "runs.py"]
)
def test_every_page_renders(app: Any, script: str) -> None:
    page = app.open(script)
    assert not page.exception
    assert not page.error


def test_an_architectures_page_tells_what_its_publishers_report(app: Any, store: Store) -> None:
    page = app.open("architecture.py", architecture=store.queries.find_architecture(NAME))
    assert not page.exception
    assert not page.error
    assert "index 1, parent 0" in app.words()


def test_a_rejected_one_says_why(app: Any, store: Store) -> None:
    leaky = store.queries.find_architecture("delta_net_conv_gate")
    page = app.open("architecture.py", architecture=leaky)
    assert not page.exception
    assert ["It sees the future" in box.value for box in page.error] == [True]
