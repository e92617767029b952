"""A byte-level corpus: training, validation and test bytes, identified by what they hold.

Validation decides what a search keeps; the test shard is opened once, for finalists, so that no
choice was made by it.
Results are comparable only between runs whose corpus has the same identity: the standard library
changes with the Python version. Documents are held in memory while the files are made.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import DataConfig
from ..errors import PreflightError
from .documents import STDLIB, Document, read_documents

# Part of the identity: a change in how documents are split or joined makes another corpus.
_FORMAT = b"linearch-corpus-2"
_SEPARATOR = b"\n\n"
_HELD_OUT_SHARE = 0.08  # of all bytes, for validation and again for the test shard
_HELD_OUT_RANGE = (0.05, 0.10)
_SMALL_UNIT = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Three files of bytes, one token each; `identity` hashes all documents' names and contents.

    `unigram_bits` is the entropy of a validation byte given only how often each occurs there: a
    model above it has learned nothing.
    """

    name: str
    identity: str
    train_path: Path
    val_path: Path
    test_path: Path
    n_train_bytes: int
    n_val_bytes: int
    n_test_bytes: int
    n_documents: int
    unigram_bits: float


def load_corpus(data: DataConfig, folder: Path) -> Corpus:
    """Reads the configured text, splits it by document and keeps both parts as files in `folder`.

    Files of the same identity are used again; several processes may do this at once. Raises
    PreflightError or ConfigError, each with what to do, for text that cannot be read or used.
    """
    documents = read_documents(data.corpus, data.text_field)
    identity = _identify(documents)
    split = split_documents(documents)
    train, val, test = map(_SEPARATOR.join, (split.train, split.val, split.test))
    name = STDLIB if data.corpus == STDLIB else Path(data.corpus).name
    corpus = Corpus(
        name=name,
        identity=identity,
        train_path=folder / f"{identity[:16]}.train.bin",
        val_path=folder / f"{identity[:16]}.val.bin",
        test_path=folder / f"{identity[:16]}.test.bin",
        n_train_bytes=len(train),
        n_val_bytes=len(val),
        n_test_bytes=len(test),
        n_documents=len(documents),
        unigram_bits=_byte_entropy_bits(val),
    )
    _require_training_window(corpus, data.seq_len)
    folder.mkdir(parents=True, exist_ok=True)
    _write_once(corpus.train_path, train)
    _write_once(corpus.val_path, val)
    _write_once(corpus.test_path, test)
    return corpus


def validation_windows(corpus: Corpus, seq_len: int, n_windows: int) -> NDArray[np.uint8]:
    """[n_windows, seq_len + 1] bytes: inputs are all but the last column, labels all but the first.

    The windows lie evenly over the validation bytes, so over its documents, and never overlap.
    Raises PreflightError when the corpus is too small for so many.
    """
    return _even_windows(corpus, corpus.val_path, corpus.n_val_bytes, seq_len, n_windows)


def shard_windows(corpus: Corpus, seq_len: int, n_windows: int) -> NDArray[np.uint8]:
    """`validation_windows` of the test shard, which is for finalists alone."""
    return _even_windows(corpus, corpus.test_path, corpus.n_test_bytes, seq_len, n_windows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The texts of each part of a corpus."""

    train: list[bytes]
    val: list[bytes]
    test: list[bytes]


def split_documents(documents: Sequence[Document]) -> Split:
    """Whole units, drawn in the order of a hash of their names: for validation, then for the shard.

    Units go to either while it stays within 10 % of the bytes, up to 8 %. Where no choice of whole
    units reaches 5 % for both (a single file), the last 8 % of all bytes, from a line's start on,
    are the shard and the 8 % before them validation.
    """
    for_val, for_test = _held_out_units(documents)
    split = Split(
        train=[one.content for one in documents if one.unit not in for_val | for_test],
        val=[one.content for one in documents if one.unit in for_val],
        test=[one.content for one in documents if one.unit in for_test],
    )
    least = _HELD_OUT_RANGE[0] * sum(len(document.content) for document in documents)
    if min(sum(map(len, split.val)), sum(map(len, split.test))) < least:
        return _cut_tail(_SEPARATOR.join(document.content for document in documents))
    return split


def held_out_modules() -> frozenset[str]:
    """The source files whose text the default corpus holds out, named from the standard library's
    folder: no candidate may read them. Raises PreflightError where there is no such source.
    """
    documents = read_documents(STDLIB, text_field="")
    for_val, for_test = _held_out_units(documents)
    return frozenset(one.name for one in documents if one.unit in for_val | for_test)


def _even_windows(
    corpus: Corpus, path: Path, n_bytes: int, seq_len: int, n_windows: int
) -> NDArray[np.uint8]:
    length = seq_len + 1
    n_fitting = n_bytes // length
    if n_fitting < n_windows:
        part = "validation part" if path == corpus.val_path else "test shard"
        raise PreflightError(
            f"The {part} of the corpus {corpus.name!r} has {n_bytes} bytes: "
            f"{n_fitting} windows of {length}, not {n_windows}. Use more text, or lower "
            "data.val_windows or data.seq_len."
        )
    tokens = np.memmap(path, dtype=np.uint8, mode="r")
    starts = np.arange(n_windows) * (n_bytes - length) // max(n_windows - 1, 1)
    return np.asarray(tokens[starts[:, None] + np.arange(length)])


def _held_out_units(documents: Iterable[Document]) -> tuple[set[str], set[str]]:
    """The units for validation and those for the test shard, which have none in common."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for document in documents:
        sizes[document.unit] += len(document.content)
    total = sum(sizes.values())
    in_order = sorted(sizes, key=lambda unit: hashlib.sha256(unit.encode()).digest())
    for_val = _fill(in_order, sizes, total)
    others = [unit for unit in in_order if unit not in for_val]
    small = [unit for unit in others if sizes[unit] <= _SMALL_UNIT * total]
    # Of many units where there are that many: one large package says little about others.
    for_test = _fill(small, sizes, total)
    if sum(sizes[unit] for unit in for_test) < _HELD_OUT_RANGE[0] * total:
        for_test = _fill(others, sizes, total)
    return for_val, for_test


def _fill(units: Iterable[str], sizes: Mapping[str, int], total: int) -> set[str]:
    """Units in their order, without those that are too large, until they are enough."""
    chosen: set[str] = set()
    n_bytes = 0
    for unit in units:
        if n_bytes + sizes[unit] <= _HELD_OUT_RANGE[1] * total:
            chosen.add(unit)
            n_bytes += sizes[unit]
        if n_bytes >= _HELD_OUT_SHARE * total:
            break
    return chosen


def _cut_tail(text: bytes) -> Split:
    share = int(_HELD_OUT_SHARE * len(text))
    val, test = (_line_start(text, len(text) - n * share) for n in (2, 1))
    return Split(train=[text[:val]], val=[text[val:test]], test=[text[test:]])


def _line_start(text: bytes, cut: int) -> int:
    """The first line's start from `cut` on, if it is near; else `cut`."""
    line_end = text.find(b"\n", cut, cut + len(text) // 50)
    return line_end + 1 if line_end >= 0 else cut


def _identify(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256(_FORMAT)
    for document in sorted(documents, key=lambda document: document.name):
        digest.update(os.fsencode(document.name) + b"\0")
        digest.update(hashlib.sha256(document.content).digest())
    return digest.hexdigest()


def _require_training_window(corpus: Corpus, seq_len: int) -> None:
    if min(corpus.n_train_bytes, corpus.n_val_bytes, corpus.n_test_bytes) <= seq_len:
        raise PreflightError(
            f"The corpus {corpus.name!r} is too small: {corpus.n_train_bytes} training, "
            f"{corpus.n_val_bytes} validation and {corpus.n_test_bytes} test bytes do not each "
            f"hold a window of {seq_len} tokens and their labels. Use more text or lower "
            "data.seq_len."
        )


def _byte_entropy_bits(text: bytes) -> float:
    counts = np.bincount(np.frombuffer(text, dtype=np.uint8))
    shares = counts[counts > 0] / max(len(text), 1)
    return float(-(shares * np.log2(shares)).sum())


def _write_once(path: Path, content: bytes) -> None:
    """Leaves `content` at `path`, whole or not at all: a reader never sees a part of it."""
    if path.exists() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
