"""Token files made elsewhere: a folder of `*train*.bin` and `*val*.bin`, as nanoGPT writes them.

A file holds unsigned little-endian tokens and nothing else, or 256 numbers of header before them
(llm.c and modded-nanogpt). Without a `*test*.bin` the second half of validation is the shard.

Tokens do not say how many bytes they stand for. So beside them lies either the `tokenizer.json` of
the byte-level BPE that made them, or a `meta.json` with `vocab_size` and `bytes_per_token`, the
mean over the validation text: bits per byte are then right for the whole and not for each window.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import PreflightError
from .parts import PARTS, Tokens
from .vocabulary import Vocabulary, read_tokenizer

_FORMAT = b"linearch-tokens-1"
_HEADER_NUMBERS = 256  # of int32
_MAGIC, _VERSION = 20240520, 1  # tokens of 2 bytes follow
_TOKENIZER, _META = "tokenizer.json", "meta.json"


def is_token_folder(corpus: str) -> bool:
    """Whether the path is a folder with training tokens directly in it."""
    folder = Path(corpus)
    return folder.is_dir() and any(folder.glob("*train*.bin"))


def read_vocabulary(folder: Path) -> Vocabulary:
    """From what lies beside the token files; raises PreflightError with what to add."""
    if (folder / _TOKENIZER).exists():
        return read_tokenizer(folder / _TOKENIZER)
    if not (folder / _META).exists():
        raise PreflightError(
            f"How many bytes the tokens in {folder} stand for is not known: put the {_TOKENIZER} "
            f"of their byte-level BPE beside them, or a {_META} such as "
            '{"vocab_size": 50257, "bytes_per_token": 4.5}.'
        )
    try:
        meta = json.loads((folder / _META).read_bytes())
        size, mean_bytes = int(meta["vocab_size"]), float(meta["bytes_per_token"])
        if not (size >= 2 and 0 < mean_bytes < 1000):
            raise ValueError("both must be positive")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreflightError(
            f"{folder / _META} does not say vocab_size and bytes_per_token ({error!r})."
        ) from None
    return Vocabulary(size=size, mean_bytes=mean_bytes)


def read_tokens(folder: Path, vocabulary: Vocabulary) -> dict[str, Tokens]:
    """The tokens by part, mapped and not read."""
    wide = np.dtype("<u4" if vocabulary.token_type == "uint32" else "<u2")
    found: dict[str, Tokens] = {
        part: [_map(file, wide) for file in sorted(folder.glob(f"*{part}*.bin"))] for part in PARTS
    }
    if not found["val"]:
        raise PreflightError(f"{folder} has training tokens and no *val*.bin to validate on.")
    if not found["test"]:
        n_kept = sum(map(len, found["val"])) // 2
        found["val"], found["test"] = _cut(found["val"], n_kept)
    return found


def identify_tokens(tokens: Mapping[str, Tokens], vocabulary: Vocabulary) -> str:
    """Hashes the tokens of each part and what they stand for."""
    digest = hashlib.sha256(_FORMAT)
    digest.update(repr((vocabulary.size, vocabulary.texts, vocabulary.mean_bytes)).encode())
    for part in PARTS:
        content = hashlib.sha256()
        for piece in tokens[part]:
            content.update(piece.view(np.uint8).data)
        digest.update(content.digest())
    return digest.hexdigest()


def _map(file: Path, wide: np.dtype[Any]) -> NDArray[Any]:
    n_bytes = file.stat().st_size
    header_bytes = 4 * _HEADER_NUMBERS
    if n_bytes >= header_bytes and wide.itemsize == 2:
        header = np.fromfile(file, dtype="<i4", count=_HEADER_NUMBERS)
        if header[0] == _MAGIC and header[1] == _VERSION:
            return _mapped(file, wide, header_bytes, int(header[2]))
    if n_bytes % wide.itemsize:
        raise PreflightError(f"{file} has {n_bytes} bytes, no whole number of {wide.name} tokens.")
    return _mapped(file, wide, 0, n_bytes // wide.itemsize)


def _mapped(file: Path, wide: np.dtype[Any], offset: int, n_tokens: int) -> NDArray[Any]:
    if n_tokens * wide.itemsize + offset != file.stat().st_size or n_tokens < 1:
        raise PreflightError(f"{file} does not hold the {n_tokens} tokens that it says it does.")
    return np.memmap(file, dtype=wide, mode="r", offset=offset, shape=(n_tokens,))


def _cut(pieces: Tokens, n_first: int) -> tuple[Tokens, Tokens]:
    """The first so many tokens, and the others."""
    first, rest = [], []
    for piece in pieces:
        n_here = min(len(piece), n_first)
        first.append(piece[:n_here])
        rest.append(piece[n_here:])
        n_first -= n_here
    return [p for p in first if len(p)], [p for p in rest if len(p)]
