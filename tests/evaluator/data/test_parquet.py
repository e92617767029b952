"""Parquet files as corpora, alone and in a folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import Corpus, load_corpus
from linearch.evaluator.data.parquet import parquet_texts


def write(file: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), file, row_group_size=7)
    return file


def load(path: Path, cache: Path, **settings: object) -> Corpus:
    return load_corpus(DataConfig(corpus=str(path), **settings), cache)


def rows(n: int) -> dict[str, list[object]]:
    return {"id": list(range(n)), "body": [f"row {i} of a table\n" * 30 for i in range(n)]}


def test_rows_are_documents_and_none_is_divided(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.parquet", rows(60))

    corpus = load(file, tmp_path / "cache", text_field="body")

    assert corpus.n_documents == 60
    parts = [part.path.read_bytes() for part in (corpus.train, corpus.val, corpus.test)]
    for i in range(60):
        text = (f"row {i} of a table\n" * 30).encode()
        assert [text in part for part in parts].count(True) == 1


def test_a_folder_of_tables_is_one_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("one", "two"):
        write(folder / f"{name}.parquet", rows(30))

    assert load(folder, tmp_path / "cache", text_field="body").n_documents == 60


def test_a_row_without_text_is_left_out(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.parquet", {"text": ["first", None, "", "last"]})
    assert list(parquet_texts(file, "text")) == ["first", "", "", "last"]


@pytest.mark.parametrize("field", ["text", "id"])
def test_another_column_than_one_of_text_is_refused_with_those_there_are(
    tmp_path: Path, field: str
) -> None:
    file = write(tmp_path / "rows.parquet", rows(3))
    with pytest.raises(ConfigError, match=rf"'{field}'; set data\.text_field .*here: body\)"):
        load(file, tmp_path / "cache", text_field=field)


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("id,body\n")
    with pytest.raises(PreflightError, match=r"Cannot read .*rows\.parquet as Parquet"):
        load(tmp_path / "rows.parquet", tmp_path / "cache")
