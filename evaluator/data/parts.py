"""The tokens of a corpus as files: made once, checked each time, counted where they are written.

Each part is one file of little-endian unsigned tokens; a manifest beside them, written last, says
what they hold. Several processes may make the same files at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import PreflightError
from .vocabulary import Vocabulary

PARTS = ("train", "val", "test")
Tokens = Sequence[NDArray[Any]]  # of one part, in pieces
_TOKENS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A file of tokens and the bytes that they stand for."""

    path: Path
    n_tokens: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The parts by name; `unigram_bits` is of validation, per byte."""

    parts: Mapping[str, Part]
    n_documents: int | None
    unigram_bits: float


def kept_parts(folder: Path, identity: str) -> Kept | None:
    """What `write_parts` left there, or None where it is missing or damaged."""
    try:
        manifest = json.loads(_manifest(folder, identity).read_bytes())
        parts = {}
        for name in PARTS:
            said = manifest["parts"][name]
            path = _path(folder, identity, name)
            if _digest(path) != said["sha256"]:
                return None
            parts[name] = Part(path=path, n_tokens=said["n_tokens"], n_bytes=said["n_bytes"])
        return Kept(
            parts=parts,
            n_documents=manifest["n_documents"],
            unigram_bits=manifest["unigram_bits"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_parts(
    folder: Path,
    identity: str,
    tokens: Mapping[str, Tokens],
    vocabulary: Vocabulary,
    n_documents: int | None,
) -> Kept:
    """Leaves files and manifest in `folder`; raises PreflightError for ids beyond `vocabulary`."""
    counts = {name: _counts(pieces, vocabulary) for name, pieces in tokens.items()}
    folder.mkdir(parents=True, exist_ok=True)
    parts, said = {}, {}
    for name, pieces in tokens.items():
        path = _path(folder, identity, name)
        n_bytes = round(float(counts[name] @ vocabulary.lengths()))
        parts[name] = Part(path=path, n_tokens=int(counts[name].sum()), n_bytes=n_bytes)
        with whole_file(path) as file:
            for chunk in _chunks(pieces):
                file.write(np.ascontiguousarray(chunk, dtype=vocabulary.token_type).tobytes())
        said[name] = {**asdict(parts[name]), "path": path.name, "sha256": _digest(path)}
    val = parts["val"]
    unigram_bits = _entropy_bits(counts["val"]) * (val.n_tokens / max(val.n_bytes, 1))
    kept = Kept(parts=parts, n_documents=n_documents, unigram_bits=unigram_bits)
    manifest = {"n_documents": n_documents, "unigram_bits": unigram_bits, "parts": said}
    with whole_file(_manifest(folder, identity)) as file:
        file.write(json.dumps(manifest, indent=1).encode())
    return kept


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is at `path` once it is complete: a reader never sees a part of it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _path(folder: Path, identity: str, name: str) -> Path:
    return folder / f"{identity[:16]}.{name}.bin"


def _manifest(folder: Path, identity: str) -> Path:
    return folder / f"{identity[:16]}.json"


def _counts(pieces: Tokens, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """[size of the vocabulary]: how often each id occurs."""
    counts = np.zeros(vocabulary.size, dtype=np.int64)
    for chunk in _chunks(pieces):
        found = np.bincount(chunk)
        if len(found) > vocabulary.size:
            raise PreflightError(
                f"The corpus holds the token {len(found) - 1}, and its vocabulary has "
                f"{vocabulary.size}: correct the vocabulary that lies beside the token files."
            )
        counts[: len(found)] += found
    return counts


def _chunks(pieces: Tokens) -> Iterator[NDArray[Any]]:
    for piece in pieces:
        for begin in range(0, len(piece), _TOKENS_AT_ONCE):
            yield piece[begin : begin + _TOKENS_AT_ONCE]


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(shares * np.log2(shares)).sum())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
