"""What cannot be measured is refused before anything is trained, with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from linearch.agents import preflight
from linearch.config import load_config
from linearch.errors import ConfigError


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LINEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "check_containment", lambda config: None)
    file = tmp_path / "book.txt"
    file.write_text("".join(f"line {i} of a book\n" for i in range(6000)))
    return file


def check(book: Path, **settings: Any) -> str:
    small = {
        "data.corpus": str(book),
        "data.val_windows": 8,
        "ladder.rung_tokens": [4096, 131_072],
        "workers.device": "cpu",
        "recall.enabled": False,
    }
    config = load_config("cpu", settings={**small, **settings})
    return preflight.check_before_start(config, ray_address=None)


def test_a_corpus_that_is_large_enough_passes(book: Path) -> None:
    assert check(book) == "cpu"


def test_a_rung_that_goes_over_its_corpus_many_times_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match=r"measure memory: use more text, or lower ladder\.rung"):
        check(book, **{"ladder.rung_tokens": [4096, 1_000_000]})


def test_a_grid_that_names_one_rate_twice_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match="names a rate twice, so it is no grid of 2 points"):
        check(book, **{"training.learning_rates": [0.003, 0.003]})


def test_a_fitness_without_its_objective_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match="add 'val_bpb' to objectives"):
        check(book, fitness="asi-arch", objectives=["state_bytes"])
