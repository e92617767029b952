"""How values are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from linearch.dashboard.wording import duration, interval, plain, signed, size, store_option


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")],
)
def test_sizes_have_units(value: float | None, said: str) -> None:
    assert size(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (48.2, "48 s"),
        (59.7, "1 min 00 s"),
        (287, "4 min 47 s"),
        (11_100, "3 h 05 min"),
    ],
)
def test_durations_are_said_in_two_units(value: float | None, said: str) -> None:
    assert duration(value) == said


def test_what_is_not_known_is_never_said_as_zero() -> None:
    assert signed(None) == "–"
    assert interval(None, 0.1) is None


def test_plain_text_keeps_its_letters_and_loses_its_markup() -> None:
    said = plain("a_b *c* [d](http://e) :red[f]")
    assert said.replace("\\", "") == "a_b *c* [d](http://e) :red[f]"
    assert r"\[d\]\(http\:" in said


def test_commands_name_the_store_only_where_they_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_option(str(tmp_path / "runs/linearch.db")) == ""
    assert store_option("/else where/x.db") == " --store '/else where/x.db'"
