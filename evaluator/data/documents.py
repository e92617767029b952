"""Where text comes from: the standard library's own source, or local files of text or of rows.

Everything is bytes: no encoding is assumed, and any file can be read.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, PreflightError
from .parquet import parquet_texts

STDLIB = "stdlib"

_EXCLUDED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",  # tables of character codes
        "idle_test",
        "pydoc_data",  # the language reference, as one literal
        "site-packages",
        "test",
        "tests",
    }
)
_BUILD_PREFIXES = ("config-", "_sysconfigdata")  # say how this interpreter was built, with paths

# Modules that restate another one: they must lie on the same side of a split.
_TWINS = {
    "_collections_abc": "collections",
    "dummy_threading": "threading",
    "genericpath": "ntpath",
    "lib2to3": "tokenize",
    "posixpath": "ntpath",
    "sre_compile": "re",
    "sre_constants": "re",
    "sre_parse": "re",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text. Documents of one `unit` are never divided between training and validation."""

    name: str
    unit: str
    content: bytes


def read_documents(
    corpus: str, text_field: str, max_bytes: int | None = None
) -> Iterator[Document]:
    """The documents of `stdlib` or of a path, in a fixed order, each read when it is asked for.

    Empty ones are left out, and so is what comes after the one that reaches `max_bytes`. Raises
    PreflightError where nothing can be read, ConfigError for a row without text_field.
    """
    if corpus == STDLIB:
        source = _stdlib_documents()
    else:
        source = _local_documents(Path(corpus), text_field)
    n_bytes = 0
    for document in source:
        if document.content.strip():
            yield document
            n_bytes += len(document.content)
        if max_bytes is not None and n_bytes >= max_bytes:
            return
    if not n_bytes:
        raise PreflightError(f"The corpus {corpus!r} is empty; set data.corpus to text.")


def _stdlib_documents() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    modules = [path for path in _files_below(root, _EXCLUDED_FOLDERS) if path.suffix == ".py"]
    names = [path.relative_to(root).as_posix() for path in modules]
    top_level = {name.split("/")[0].removesuffix(".py") for name in names}
    for path, name in zip(modules, names, strict=True):
        if not name.startswith(_BUILD_PREFIXES):
            yield Document(name=name, unit=stdlib_unit(name, top_level), content=_read(path))
    if not modules:
        raise PreflightError(
            f"This Python has no standard library source below {root} (it may be packed in a zip); "
            "set data.corpus to a text file or folder."
        )


def stdlib_unit(name: str, top_level: set[str]) -> str:
    """The package or module a source file belongs to; private twins belong to the public one.

    `_pydecimal.py` restates decimal in Python, so the underscore goes, and `_py` goes where what is
    left is a top-level name too.
    """
    module = name.split("/")[0].removesuffix(".py")
    module = _TWINS.get(module, module)
    public = module.lstrip("_")
    twin = public.removeprefix("py").lstrip("_")
    return twin if module.startswith("_py") and twin in top_level else public


def _local_documents(path: Path, text_field: str) -> Iterator[Document]:
    if path.is_dir():
        files = [file for file in _files_below(path) if not file.name.startswith(".")]
        names = [file.relative_to(path).as_posix() for file in files]
    elif path.exists() and not path.is_file():
        raise PreflightError(f"The corpus {path} is neither a file nor a folder.")
    else:
        files, names = [path], [path.name]
    for file, name in zip(files, names, strict=True):
        if file.suffix == ".jsonl":
            yield from _rows(name, _jsonl_texts(file, text_field))
        elif file.suffix == ".parquet":
            yield from _rows(name, parquet_texts(file, text_field))
        else:
            yield Document(name=name, unit=name, content=_read(file))


def _rows(name: str, texts: Iterable[str]) -> Iterator[Document]:
    for number, text in enumerate(texts, start=1):
        row_name = f"{name}:{number}"
        content = text.encode("utf-8", "surrogatepass")
        yield Document(name=row_name, unit=row_name, content=content)


def _jsonl_texts(file: Path, text_field: str) -> Iterator[str]:
    """One text a line; an empty one for an empty line."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _row_text(file, number, line, text_field) if line.strip() else ""
    except OSError as error:
        raise _unreadable(file, error) from None


def _row_text(file: Path, number: int, line: bytes, text_field: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:  # malformed JSON or not UTF-8
        raise PreflightError(f"{file}, line {number}, is not JSON: {error}.") from None
    if not isinstance(row, dict):
        kind = type(row).__name__
        raise PreflightError(f"{file}, line {number}, is a JSON {kind}, not an object.")
    text = row.get(text_field)
    if isinstance(text, str):
        return text
    fields = ", ".join(sorted(key for key, value in row.items() if isinstance(value, str)))
    raise ConfigError(
        f"{file}, line {number}, has no text in the field {text_field!r}; "
        f"set data.text_field to one that does (here: {fields or 'none'})."
    )


def _files_below(folder: Path, excluded: frozenset[str] = frozenset()) -> list[Path]:
    """Every regular file, sorted by its path; hidden and `excluded` folders are not entered."""

    def complain(error: OSError) -> None:
        raise PreflightError(f"Cannot read the corpus folder {error.filename}: {error.strerror}.")

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=complain):
        folders[:] = [name for name in folders if name not in excluded and name[0] != "."]
        found += [Path(parent, name) for name in files]
    return sorted(path for path in found if path.is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> PreflightError:
    reason = error.strerror or str(error)
    return PreflightError(
        f"Cannot read the corpus file {path}: {reason}; set data.corpus to 'stdlib', to a readable "
        "file of text, JSONL or Parquet, or to a folder of them."
    )
