"""The corpus: how it is split and kept, and what it says of text it cannot use."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import load_corpus, shard_windows, validation_windows
from linearch.evaluator.data.documents import read_documents
from linearch.evaluator.data.parts import Part
from linearch.evaluator.data.sources import _Text
from linearch.evaluator.data.splits import held_out_modules


@pytest.fixture(scope="module")
def stdlib(tmp_path_factory):
    return load_corpus(DataConfig(), tmp_path_factory.mktemp("stdlib"))


@pytest.fixture
def folder(tmp_path):
    """Forty documents of about a thousand bytes each, below two folders."""
    texts = tmp_path / "texts"
    for i in range(40):
        file = texts / ("even" if i % 2 == 0 else "odd") / f"{i}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"document {i}\n" * 80)
    return texts


def load(path, tmp_path, **settings):
    return load_corpus(DataConfig(corpus=str(path), **settings), tmp_path / "cache")


def test_the_standard_library_gives_megabytes_split_within_its_range(stdlib):
    total = stdlib.train.n_bytes + stdlib.val.n_bytes + stdlib.test.n_bytes

    assert total > 5_000_000
    assert 0.05 <= stdlib.val.n_bytes / total <= 0.10
    assert 0.05 <= stdlib.test.n_bytes / total <= 0.10
    assert stdlib.train.path.stat().st_size == stdlib.train.n_bytes
    assert stdlib.val.path.stat().st_size == stdlib.val.n_bytes
    assert 4 < stdlib.unigram_bits < 5.5


def test_a_package_is_never_divided_between_the_parts(stdlib):
    parts = [p.read_bytes() for p in (stdlib.train.path, stdlib.val.path, stdlib.test.path)]
    sides: dict[str, set[int]] = {}
    for document in read_documents("stdlib", "text"):
        if len(document.content) > 200:  # shorter ones may stand in another by chance
            found = {i for i, part in enumerate(parts) if document.content in part}
            sides.setdefault(document.unit, set()).update(found)

    assert [unit for unit, found in sides.items() if len(found) != 1] == []


def test_the_held_out_modules_are_those_of_validation_and_of_the_shard(stdlib):
    held_out = held_out_modules()
    outside = stdlib.val.path.read_bytes() + stdlib.test.path.read_bytes()
    for document in read_documents("stdlib", "text"):
        if len(document.content) > 200:
            assert (document.name in held_out) == (document.content in outside)


def test_the_same_text_is_the_same_corpus_wherever_it_is_kept(folder, tmp_path):
    first = load_corpus(DataConfig(corpus=str(folder)), tmp_path / "one")
    second = load_corpus(DataConfig(corpus=str(folder)), tmp_path / "two")

    assert first.identity == second.identity
    assert first.val.path.read_bytes() == second.val.path.read_bytes()


@pytest.mark.parametrize("change", ["content", "name"])
def test_another_content_or_name_is_another_corpus(folder, tmp_path, change):
    before = load(folder, tmp_path)
    file = folder / "even" / "0.txt"
    if change == "content":
        file.write_text("changed\n" * 100)
    else:
        file.rename(file.with_name("zero.txt"))

    assert load(folder, tmp_path).identity != before.identity


def test_a_folder_is_split_by_whole_files(folder, tmp_path):
    corpus = load(folder, tmp_path)
    parts = [p.read_text() for p in (corpus.train.path, corpus.val.path, corpus.test.path)]

    assert corpus.n_documents == 40
    for i in range(40):
        lines = f"document {i}\n" * 80
        assert [lines in part for part in parts].count(True) == 1


def test_a_single_file_gives_its_last_lines_to_validation_and_the_shard(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("".join(f"line {i}\n" for i in range(2000)))

    corpus = load(file, tmp_path)

    paths = (corpus.train.path, corpus.val.path, corpus.test.path)
    train, val, test = (path.read_text() for path in paths)
    assert train + val + test == file.read_text()
    for part in (val, test):
        assert part.startswith("line ")
        assert 0.05 < len(part) / len(file.read_text()) <= 0.10


def test_jsonl_rows_are_documents(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"id": i, "body": f"row {i} " * 50} for i in range(60)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")

    corpus = load(file, tmp_path, text_field="body")

    assert corpus.n_documents == 60
    paths = (corpus.train.path, corpus.val.path, corpus.test.path)
    assert sum(b"row 7 row 7" in path.read_bytes() for path in paths) == 1


def test_any_bytes_are_text(tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(bytes(range(128, 256)) * 60)

    corpus = load(file, tmp_path)

    assert corpus.train.n_bytes + corpus.val.n_bytes + corpus.test.n_bytes == 128 * 60
    assert corpus.unigram_bits == pytest.approx(7, abs=0.1)


def test_files_are_made_once(folder, tmp_path):
    corpus = load(folder, tmp_path)
    made = corpus.train.path.stat().st_mtime_ns

    assert load(folder, tmp_path) == corpus
    assert corpus.train.path.stat().st_mtime_ns == made


@pytest.mark.parametrize("damaged", ["train.bin", "val.bin", "test.bin", "json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"cut")])
def test_damaged_files_are_made_again(folder, tmp_path, damaged, damage):
    corpus = load(folder, tmp_path)
    text = corpus.val.path.read_bytes()
    damage(tmp_path / "cache" / f"{corpus.identity[:16]}.{damaged}")

    assert load(folder, tmp_path) == corpus
    assert corpus.val.path.read_bytes() == text
    assert load(folder, tmp_path).train.path.stat().st_size == corpus.train.n_bytes


def test_what_changes_while_it_is_read_is_refused(folder, tmp_path, monkeypatch):
    split = _Text.split

    def late(self):
        (folder / "even" / "0.txt").write_text("changed\n" * 100)
        return split(self)

    monkeypatch.setattr(_Text, "split", late)
    with pytest.raises(PreflightError, match="changed while it was read"):
        load(folder, tmp_path)


def test_processes_that_make_the_same_corpus_do_not_disturb_each_other(folder, tmp_path):
    data = DataConfig(corpus=str(folder))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.starmap(load_corpus, [(data, tmp_path / "cache")] * 6, chunksize=1)

    assert made == [made[0]] * 6
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == sorted(
        f"{made[0].identity[:16]}.{end}" for end in ("train.bin", "val.bin", "test.bin", "json")
    )


def test_windows_are_distinct_stretches_from_start_to_end(stdlib):
    windows = validation_windows(stdlib, seq_len=128, n_windows=384)

    val = np.fromfile(stdlib.val.path, dtype=np.uint8)
    starts = [i * (len(val) - 129) // 383 for i in range(384)]
    assert windows.shape == (384, 129)
    assert windows.dtype == np.uint8
    assert all((val[s : s + 129] == row).all() for s, row in zip(starts, windows, strict=True))
    assert min(np.diff(starts)) >= 129
    assert starts[-1] + 129 == len(val)


def test_windows_may_use_every_byte_and_no_more(stdlib, tmp_path):
    val = bytes(range(200)) * 2
    (tmp_path / "val").write_bytes(val)
    corpus = replace(stdlib, val=Part(path=tmp_path / "val", n_tokens=len(val), n_bytes=len(val)))

    windows = validation_windows(corpus, seq_len=9, n_windows=40)

    assert windows.tobytes() == val
    with pytest.raises(PreflightError, match=r"40 windows of 10, not 41.*data\.val_windows"):
        validation_windows(corpus, seq_len=9, n_windows=41)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PreflightError, match=r"nowhere\.txt: No such file.*set data\.corpus"):
        load(tmp_path / "nowhere.txt", tmp_path)


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    file = tmp_path / "empty.txt"
    file.write_text(content)

    with pytest.raises(PreflightError, match="is empty"):
        load(file, tmp_path)


def test_a_text_too_small_for_one_window_is_refused_and_leaves_nothing(tmp_path):
    file = tmp_path / "small.txt"
    file.write_text("a few words\n" * 20)

    with pytest.raises(PreflightError, match=r"too small.*lower data\.seq_len"):
        load(file, tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("second_row", "error", "message"),
    [
        ('{"body": "text"}', ConfigError, r"line 2, .*'text'; set data\.text_field.*here: body"),
        ('{"text": 5}', ConfigError, "line 2, .*here: none"),
        ("{text: x}", PreflightError, "line 2, is not JSON"),
        ("[1, 2]", PreflightError, "line 2, is a JSON list"),
    ],
)
def test_a_jsonl_row_without_text_is_named_by_its_line(tmp_path, second_row, error, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "fine"}}\n{second_row}\n')

    with pytest.raises(error, match=message):
        load(file, tmp_path)


def test_the_shard_has_windows_of_its_own(stdlib):
    shard = shard_windows(stdlib, seq_len=128, n_windows=100)

    assert shard[0].tobytes() == stdlib.test.path.read_bytes()[:129]
    assert not (shard == validation_windows(stdlib, seq_len=128, n_windows=100)).all(1).any()


def test_a_shard_too_small_for_its_windows_is_refused(folder, tmp_path):
    corpus = load(folder, tmp_path)
    with pytest.raises(PreflightError, match="The test shard of the corpus"):
        shard_windows(corpus, seq_len=128, n_windows=1000)
