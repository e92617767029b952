"""A search starts only where candidates can be confined, or where it was told to start anyway."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from linearch import doctor
from linearch.agents import preflight
from linearch.config import load_config
from linearch.errors import PreflightError
from linearch.evaluator.sandbox import containment
from linearch.evaluator.sandbox.containment import found
from linearch.launch import app

_BARE = found("strict", ("rlimits",), {"landlock": "the kernel offers no Landlock"}, ["list /"])


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "probe_containment", lambda profile: _BARE)
    monkeypatch.setattr(containment, "probe_containment", lambda profile: _BARE)


@pytest.mark.usefixtures("bare_machine")
def test_a_search_refuses_to_start_where_nothing_confines_candidates() -> None:
    with pytest.raises(PreflightError, match=r"no Landlock.*--unsafe-no-sandbox"):
        preflight.check_before_start(load_config("cpu"), ray_address=None)


@pytest.mark.usefixtures("bare_machine")
def test_it_starts_when_it_is_told_to() -> None:
    config = load_config("cpu", None, {"sandbox.allow_unsafe": True})
    assert preflight.check_before_start(config, ray_address=None) == "cpu"


def test_the_flag_is_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("linearch.launch._dry_run", lambda request, _: asked.append(request) or 0)
    CliRunner().invoke(app, ["--dry-run", "--unsafe-no-sandbox"])
    CliRunner().invoke(app, ["--dry-run"])
    assert [request.settings.get("sandbox.allow_unsafe") for request in asked] == [True, None]


@pytest.mark.usefixtures("bare_machine")
def test_the_doctor_says_what_is_missing() -> None:
    finding = doctor._sandbox()
    assert not finding.is_ok
    assert "no Landlock" in finding.text
    assert "not refused: list /" in finding.text
