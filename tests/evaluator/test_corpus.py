"""The corpus: what it reads, how it is split and kept, and what it says of text it cannot use."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import (
    held_out_modules,
    load_corpus,
    shard_windows,
    split_documents,
    validation_windows,
)
from linearch.evaluator.documents import Document, read_documents, stdlib_unit


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
    total = stdlib.n_train_bytes + stdlib.n_val_bytes + stdlib.n_test_bytes

    assert total > 5_000_000
    assert 0.05 <= stdlib.n_val_bytes / total <= 0.10
    assert 0.05 <= stdlib.n_test_bytes / total <= 0.10
    assert stdlib.train_path.stat().st_size == stdlib.n_train_bytes
    assert stdlib.val_path.stat().st_size == stdlib.n_val_bytes
    assert 4 < stdlib.unigram_bits < 5.5


def test_the_standard_library_comes_without_tests_tables_and_installed_packages():
    names = [document.name for document in read_documents("stdlib", "text")]

    unwanted = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages"}
    assert not [name for name in names if unwanted & set(name.split("/")[:-1])]
    assert not [name for name in names if name.startswith(("_sysconfigdata", "config-"))]
    assert {"ast.py", "json/decoder.py"} <= set(names)


def test_a_package_is_never_divided_between_the_parts(stdlib):
    parts = [p.read_bytes() for p in (stdlib.train_path, stdlib.val_path, stdlib.test_path)]
    sides: dict[str, set[int]] = {}
    for document in read_documents("stdlib", "text"):
        if len(document.content) > 200:  # shorter ones may stand in another by chance
            found = {i for i, part in enumerate(parts) if document.content in part}
            sides.setdefault(document.unit, set()).update(found)

    assert [unit for unit, found in sides.items() if len(found) != 1] == []


def test_the_held_out_modules_are_those_of_validation_and_of_the_shard(stdlib):
    held_out = held_out_modules()
    outside = stdlib.val_path.read_bytes() + stdlib.test_path.read_bytes()
    for document in read_documents("stdlib", "text"):
        if len(document.content) > 200:
            assert (document.name in held_out) == (document.content in outside)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("_pydecimal.py", "decimal"),
        ("decimal.py", "decimal"),
        ("_pyio.py", "io"),
        ("_weakrefset.py", "weakrefset"),
        ("_collections_abc.py", "collections"),
        ("collections/abc.py", "collections"),
        ("posixpath.py", "ntpath"),
        ("_pyrepl/console.py", "pyrepl"),
        ("json/decoder.py", "json"),
    ],
)
def test_private_twins_belong_to_the_public_module(name, unit):
    assert stdlib_unit(name, {"decimal", "io", "collections", "json"}) == unit


def test_the_same_text_is_the_same_corpus_wherever_it_is_kept(folder, tmp_path):
    first = load_corpus(DataConfig(corpus=str(folder)), tmp_path / "one")
    second = load_corpus(DataConfig(corpus=str(folder)), tmp_path / "two")

    assert first.identity == second.identity
    assert first.val_path.read_bytes() == second.val_path.read_bytes()


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
    parts = [p.read_text() for p in (corpus.train_path, corpus.val_path, corpus.test_path)]

    assert corpus.n_documents == 40
    for i in range(40):
        lines = f"document {i}\n" * 80
        assert [lines in part for part in parts].count(True) == 1


def test_a_single_file_gives_its_last_lines_to_validation_and_the_shard(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("".join(f"line {i}\n" for i in range(2000)))

    corpus = load(file, tmp_path)

    paths = (corpus.train_path, corpus.val_path, corpus.test_path)
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
    paths = (corpus.train_path, corpus.val_path, corpus.test_path)
    assert sum(b"row 7 row 7" in path.read_bytes() for path in paths) == 1


def test_any_bytes_are_text(tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(bytes(range(128, 256)) * 60)

    corpus = load(file, tmp_path)

    assert corpus.n_train_bytes + corpus.n_val_bytes + corpus.n_test_bytes == 128 * 60
    assert corpus.unigram_bits == pytest.approx(7, abs=0.1)


def test_files_are_made_once_and_mended_when_damaged(folder, tmp_path):
    corpus = load(folder, tmp_path)
    made = corpus.train_path.stat().st_mtime_ns
    corpus.val_path.write_bytes(b"cut")

    assert load(folder, tmp_path) == corpus
    assert corpus.train_path.stat().st_mtime_ns == made
    assert corpus.val_path.stat().st_size == corpus.n_val_bytes


def test_processes_that_make_the_same_corpus_do_not_disturb_each_other(folder, tmp_path):
    data = DataConfig(corpus=str(folder))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.starmap(load_corpus, [(data, tmp_path / "cache")] * 6, chunksize=1)

    assert made == [made[0]] * 6
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == sorted(
        [made[0].train_path.name, made[0].val_path.name, made[0].test_path.name]
    )


def test_windows_are_distinct_stretches_from_start_to_end(stdlib):
    windows = validation_windows(stdlib, seq_len=128, n_windows=384)

    val = np.fromfile(stdlib.val_path, dtype=np.uint8)
    starts = [i * (len(val) - 129) // 383 for i in range(384)]
    assert windows.shape == (384, 129)
    assert windows.dtype == np.uint8
    assert all((val[s : s + 129] == row).all() for s, row in zip(starts, windows, strict=True))
    assert min(np.diff(starts)) >= 129
    assert starts[-1] + 129 == len(val)


def test_windows_may_use_every_byte_and_no_more(stdlib, tmp_path):
    val = bytes(range(200)) * 2
    (tmp_path / "val").write_bytes(val)
    corpus = replace(stdlib, val_path=tmp_path / "val", n_val_bytes=len(val))

    windows = validation_windows(corpus, seq_len=9, n_windows=40)

    assert windows.tobytes() == val
    with pytest.raises(PreflightError, match=r"40 windows of 10, not 41.*data\.val_windows"):
        validation_windows(corpus, seq_len=9, n_windows=41)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PreflightError, match=r"nowhere\.txt: No such file.*set data\.corpus"):
        load(tmp_path / "nowhere.txt", tmp_path)


def test_a_device_is_not_read():
    with pytest.raises(PreflightError, match="/dev/zero is neither a file nor a folder"):
        read_documents("/dev/zero", "text")


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

    assert shard[0].tobytes() == stdlib.test_path.read_bytes()[:129]
    assert not (shard == validation_windows(stdlib, seq_len=128, n_windows=100)).all(1).any()


def test_a_shard_too_small_for_its_windows_is_refused(folder, tmp_path):
    corpus = load(folder, tmp_path)
    with pytest.raises(PreflightError, match="The test shard of the corpus"):
        shard_windows(corpus, seq_len=128, n_windows=1000)


def test_units_are_held_out_by_their_name_not_their_order():
    documents = [
        Document(name=f"{i}", unit=f"{i}", content=f"text {i}\n".encode() * 10) for i in range(50)
    ]

    split, reverse = split_documents(documents), split_documents(documents[::-1])

    assert set(split.val) == set(reverse.val)
    assert set(split.test) == set(reverse.test)
    assert not set(split.val) & set(split.test)
