"""Datasets of the hub, with the library reading local files in place of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import load_corpus
from linearch.evaluator.data.hugging_face import take

datasets = pytest.importorskip("datasets")  # of the extra `data`
_load_dataset = datasets.load_dataset


class Hub:
    """Answers load_dataset with local rows, and keeps what it was asked for."""

    def __init__(self, folder: Path) -> None:
        rows = [{"n": i, "body": f"row {i} of a dataset\n" * 30} for i in range(80)]
        self._file = folder / "hub.jsonl"
        self._file.write_text("\n".join(map(json.dumps, rows)))
        self.asked: list[tuple[Any, ...]] = []

    def load_dataset(self, name: str, config: str | None, **options: Any) -> Any:
        self.asked.append((name, config, options["revision"]))
        return _load_dataset(
            "json",
            data_files={"train": str(self._file)},
            split=options["split"],
            streaming=options["streaming"],
        )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    return hub


def settings(corpus: str = "hf:owner/name", **others: Any) -> DataConfig:
    return DataConfig(**{"corpus": corpus, "text_field": "body", "max_bytes": 1_000_000, **others})


def test_a_dataset_is_a_corpus_of_its_rows(hub: Hub, tmp_path: Path) -> None:
    corpus = load_corpus(settings(), tmp_path / "cache")
    assert (corpus.name, corpus.n_documents) == ("hf:owner/name", 80)


def test_it_is_fetched_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_corpus(settings(), tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "datasets", None)  # nor is the library needed any more
    assert load_corpus(settings(), tmp_path / "cache") == made
    assert len(hub.asked) == 1


def test_no_more_is_taken_than_reaches_max_bytes(hub: Hub, tmp_path: Path) -> None:
    taken = take(settings(max_bytes=2000), tmp_path / "cache")
    texts = [json.loads(line)["body"] for line in taken.read_text().splitlines()]
    assert sum(map(len, texts[:-1])) < 2000 <= sum(map(len, texts))


@pytest.mark.parametrize(
    ("corpus", "asked"),
    [
        ("hf:name", ("name", None, None)),
        ("hf:owner/name", ("owner/name", None, None)),
        ("hf:owner/name/sample-10BT", ("owner/name", "sample-10BT", None)),
        ("hf:owner/name@v1.0", ("owner/name", None, "v1.0")),
        ("hf:owner/name/part@refs/pr/1", ("owner/name", "part", "refs/pr/1")),
    ],
)
def test_a_name_may_have_a_configuration_and_a_revision(
    hub: Hub, tmp_path: Path, corpus: str, asked: tuple[Any, ...]
) -> None:
    take(settings(corpus), tmp_path / "cache")
    assert hub.asked == [asked]


@pytest.mark.parametrize("corpus", ["hf:", "hf:a/b/c/d", "hf:owner name"])
def test_what_is_no_name_is_refused(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write hf:OWNER/NAME"):
        take(settings(corpus), tmp_path)


def test_how_much_to_fetch_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set data\.max_bytes"):
        take(settings(max_bytes=None), tmp_path)


def test_a_column_that_is_not_there_is_refused_and_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no text in the column 'text'.*here: body"):
        take(settings(text_field="text"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_without_a_network_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\n(LocalEntryNotFoundError).")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        PreflightError, match=r"hf:owner/name \(Couldn't .*\): .* local text"
    ) as told:
        take(settings(), tmp_path)
    assert "\n" not in str(told.value)


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PreflightError, match=r"pip install 'linearch\[data\]'"):
        take(settings(), tmp_path)
