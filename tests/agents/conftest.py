"""A store, a book to train on, and the configuration of a search that follows a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from siblings import load_siblings

from linearch.config import RunConfig, validate_config
from linearch.db import Store

load_siblings(__file__, "scripted_search")


@pytest.fixture
def config() -> RunConfig:
    """Two rungs, two baselines, four candidates and no tasks."""
    return validate_config(
        {
            "baselines": ["linear_attention", "gated_deltanet"],
            "ladder": {"rung_tokens": [10, 40], "promote_fraction": 0.5},
            "recall": {"enabled": False},
            "budget": {"max_candidates": 4},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "linearch.db") as opened:
        yield opened


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus that no cache knows."""
    monkeypatch.setenv("LINEARCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "book.txt"
    file.write_text("".join(f"line {i} of a book\n" for i in range(6000)))
    return file
