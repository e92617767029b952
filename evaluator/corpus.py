"""A byte-level corpus: training and validation bytes in two files, identified by what they hold.

Results are comparable only between runs whose corpus has the same identity: the standard library
changes with the Python version. Documents are held in memory while the files are made.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import DataConfig
from ..errors import PreflightError
from .documents import STDLIB, Document, read_documents

# Part of the identity: a change in how documents are split or joined makes another corpus.
_FORMAT = b"linearch-corpus-1"
_SEPARATOR = b"\n\n"
_VAL_SHARE = 0.08
_VAL_SHARE_RANGE = (0.05, 0.10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Two files of bytes, one token each; `identity` hashes all documents' names and contents.

    `unigram_bits` is the entropy of a validation byte given only how often each occurs there: a
    model above it has learned nothing.
    """

    name: str
    identity: str
    train_path: Path
    val_path: Path
    n_train_bytes: int
    n_val_bytes: int
    n_documents: int
    unigram_bits: float


def load_corpus(data: DataConfig, folder: Path) -> Corpus:
    """Reads the configured text, splits it by document and keeps both parts as files in `folder`.

    Files of the same identity are used again; several processes may do this at once. Raises
    PreflightError or ConfigError, each with what to do, for text that cannot be read or used.
    """
    documents = read_documents(data.corpus, data.text_field)
    identity = _identify(documents)
    train, val = (_SEPARATOR.join(part) for part in split_documents(documents))
    name = STDLIB if data.corpus == STDLIB else Path(data.corpus).name
    corpus = Corpus(
        name=name,
        identity=identity,
        train_path=folder / f"{identity[:16]}.train.bin",
        val_path=folder / f"{identity[:16]}.val.bin",
        n_train_bytes=len(train),
        n_val_bytes=len(val),
        n_documents=len(documents),
        unigram_bits=_byte_entropy_bits(val),
    )
    _require_training_window(corpus, data.seq_len)
    folder.mkdir(parents=True, exist_ok=True)
    _write_once(corpus.train_path, train)
    _write_once(corpus.val_path, val)
    return corpus


def validation_windows(corpus: Corpus, seq_len: int, n_windows: int) -> NDArray[np.uint8]:
    """[n_windows, seq_len + 1] bytes: inputs are all but the last column, labels all but the first.

    The windows lie evenly over the validation bytes, so over its documents, and never overlap.
    Raises PreflightError when the corpus is too small for so many.
    """
    length = seq_len + 1
    n_fitting = corpus.n_val_bytes // length
    if n_fitting < n_windows:
        raise PreflightError(
            f"The validation part of the corpus {corpus.name!r} has {corpus.n_val_bytes} bytes: "
            f"{n_fitting} windows of {length}, not {n_windows}. Use more text, or lower "
            "data.val_windows or data.seq_len."
        )
    tokens = np.memmap(corpus.val_path, dtype=np.uint8, mode="r")
    starts = np.arange(n_windows) * (corpus.n_val_bytes - length) // max(n_windows - 1, 1)
    return np.asarray(tokens[starts[:, None] + np.arange(length)])


def split_documents(documents: Sequence[Document]) -> tuple[list[bytes], list[bytes]]:
    """Training and validation texts: whole units, drawn in the order of a hash of their names.

    Units go to validation while it stays within 10 % of the bytes, up to 8 %. Where no choice of
    whole units reaches 5 % (a single file), the last 8 % of all bytes, from a line's start on, do.
    """
    total = sum(len(document.content) for document in documents)
    held_out = _held_out_units(documents, total)
    train = [document.content for document in documents if document.unit not in held_out]
    val = [document.content for document in documents if document.unit in held_out]
    if sum(map(len, val)) < _VAL_SHARE_RANGE[0] * total:
        return _cut_tail(_SEPARATOR.join(document.content for document in documents))
    return train, val


def _held_out_units(documents: Iterable[Document], total: int) -> set[str]:
    sizes: defaultdict[str, int] = defaultdict(int)
    for document in documents:
        sizes[document.unit] += len(document.content)
    held_out: set[str] = set()
    n_bytes = 0
    for unit in sorted(sizes, key=lambda unit: hashlib.sha256(unit.encode()).digest()):
        if n_bytes + sizes[unit] <= _VAL_SHARE_RANGE[1] * total:
            held_out.add(unit)
            n_bytes += sizes[unit]
        if n_bytes >= _VAL_SHARE * total:
            break
    return held_out


def _cut_tail(text: bytes) -> tuple[list[bytes], list[bytes]]:
    cut = len(text) - int(_VAL_SHARE * len(text))
    line_end = text.find(b"\n", cut, cut + len(text) // 50)
    cut = line_end + 1 if line_end >= 0 else cut
    return [text[:cut]], [text[cut:]]


def _identify(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256(_FORMAT)
    for document in sorted(documents, key=lambda document: document.name):
        digest.update(os.fsencode(document.name) + b"\0")
        digest.update(hashlib.sha256(document.content).digest())
    return digest.hexdigest()


def _require_training_window(corpus: Corpus, seq_len: int) -> None:
    if min(corpus.n_train_bytes, corpus.n_val_bytes) <= seq_len:
        raise PreflightError(
            f"The corpus {corpus.name!r} is too small: {corpus.n_train_bytes} training and "
            f"{corpus.n_val_bytes} validation bytes hold no window of {seq_len} tokens and their "
            "labels. Use more text or lower data.seq_len."
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
