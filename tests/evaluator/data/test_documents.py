"""Documents: what is read, in what order, and what is not."""

from __future__ import annotations

import pytest

from linearch.errors import PreflightError
from linearch.evaluator.data.documents import read_documents, stdlib_unit


def test_the_standard_library_comes_without_tests_tables_and_installed_packages():
    names = [document.name for document in read_documents("stdlib", "text")]

    unwanted = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages"}
    assert not [name for name in names if unwanted & set(name.split("/")[:-1])]
    assert not [name for name in names if name.startswith(("_sysconfigdata", "config-"))]
    assert {"ast.py", "json/decoder.py"} <= set(names)


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


def test_a_device_is_not_read():
    with pytest.raises(PreflightError, match="/dev/zero is neither a file nor a folder"):
        next(read_documents("/dev/zero", "text"))


def test_only_the_first_documents_that_reach_max_bytes_are_used(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(f"{i}" * 100)

    names = [document.name for document in read_documents(str(tmp_path), "text", max_bytes=250)]

    assert names == ["0.txt", "1.txt", "2.txt"]


def test_the_lines_of_a_jsonl_file_are_read_one_by_one(tmp_path):
    """So that a file larger than memory can be identified."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "fine"}\r\n\n{"text": "also"}\nnot JSON\n')
    documents = read_documents(str(file), "text")

    assert [next(documents).name, next(documents).name] == ["rows.jsonl:1", "rows.jsonl:3"]
    with pytest.raises(PreflightError, match="line 4, is not JSON"):
        next(documents)
