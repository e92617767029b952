"""From settings to tokens: which corpus it is, what its ids stand for, and how to get them.

A corpus that is kept already is only identified here, which reads its text once and holds none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...config import DataConfig
from ...errors import ConfigError, PreflightError
from .bpe import LEAST_VOCABULARY, encode, train_bpe
from .documents import STDLIB, Document, read_documents
from .hugging_face import is_dataset_name, take
from .parts import Tokens, whole_file
from .splits import SEPARATOR, Split, split_documents
from .token_files import identify_tokens, is_token_folder, read_tokens, read_vocabulary
from .vocabulary import BYTES, Vocabulary, read_tokenizer

# Part of the identity: a change in how documents are split or joined makes another corpus.
_FORMAT = b"linearch-corpus-2"
_BPE_FORMAT = b"linearch-bpe-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """`read` gives the tokens of each part and how many documents they come from, if known."""

    name: str
    identity: str
    vocabulary: Vocabulary
    read: Callable[[], tuple[dict[str, Tokens], int | None]]


def open_source(data: DataConfig, folder: Path, vocab_size: int) -> Source:
    """The configured corpus. `folder` keeps what is fetched or trained for it; `vocab_size` is of a
    BPE to train. Raises PreflightError or ConfigError, each with what to do.
    """
    if is_token_folder(data.corpus):
        return _token_source(data)
    if is_dataset_name(data.corpus):
        path, name = str(take(data, folder)), data.corpus
    else:
        path = data.corpus
        name = STDLIB if path == STDLIB else Path(path).name
    text = _Text(path, data)
    if data.tokenizer == "bytes":
        return Source(name=name, identity=text.identity, vocabulary=BYTES, read=text.as_bytes)
    return _bpe_source(name, text, folder, vocab_size)


class _Text:
    """Documents that are read anew whenever they are asked for."""

    def __init__(self, path: str, data: DataConfig) -> None:
        self._path, self._data = path, data
        self.identity = _identify(self._read())

    def split(self) -> tuple[Split, int]:
        """The texts of each part, and how many documents there are."""
        documents = list(self._read())
        if _identify(documents) != self.identity:
            raise PreflightError("The corpus changed while it was read; start again.")
        return split_documents(documents), len(documents)

    def as_bytes(self) -> tuple[dict[str, Tokens], int]:
        split, n_documents = self.split()
        return {
            name: [np.frombuffer(SEPARATOR.join(texts), dtype=np.uint8)]
            for name, texts in split.by_name().items()
        }, n_documents

    def _read(self) -> Iterator[Document]:
        return read_documents(self._path, self._data.text_field, self._data.max_bytes)


def _bpe_source(name: str, text: _Text, folder: Path, vocab_size: int) -> Source:
    if vocab_size < LEAST_VOCABULARY:
        raise ConfigError(
            f"model.vocab_size={vocab_size} leaves a BPE no tokens beside the 256 bytes: set it to "
            "some thousands, or data.tokenizer to 'bytes'."
        )
    file = folder / f"{text.identity[:16]}.bpe-{vocab_size}.tokenizer.json"
    if not file.exists():
        split, _ = text.split()
        trained = train_bpe(_separated(split.train), vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as kept:
            kept.write(trained.encode())
    tokenizer = file.read_text()
    vocabulary = read_tokenizer(file)

    def read() -> tuple[dict[str, Tokens], int]:
        split, n_documents = text.split()
        return {
            part: encode(tokenizer, _separated(texts), vocabulary.token_type)
            for part, texts in split.by_name().items()
        }, n_documents

    parts_of_identity = (_BPE_FORMAT, text.identity.encode(), tokenizer.encode())
    identity = hashlib.sha256(b"\0".join(parts_of_identity)).hexdigest()
    return Source(name=name, identity=identity, vocabulary=vocabulary, read=read)


def _token_source(data: DataConfig) -> Source:
    if data.tokenizer != "bytes" or data.max_bytes is not None:
        raise ConfigError(
            f"{data.corpus} holds tokens already, all of which are used: leave data.tokenizer and "
            "data.max_bytes as they are by default."
        )
    folder = Path(data.corpus)
    vocabulary = read_vocabulary(folder)
    tokens = read_tokens(folder, vocabulary)
    return Source(
        name=folder.name,
        identity=identify_tokens(tokens, vocabulary),
        vocabulary=vocabulary,
        read=lambda: (tokens, None),
    )


def _separated(texts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes as the texts joined, one document at a time."""
    before: bytes | None = None
    for text in texts:
        if before is not None:
            yield before + SEPARATOR
        before = text
    if before is not None:
        yield before


def _identify(documents: Iterable[Document]) -> str:
    contents = {one.name: hashlib.sha256(one.content).digest() for one in documents}
    digest = hashlib.sha256(_FORMAT)
    for name in sorted(contents):
        digest.update(os.fsencode(name) + b"\0")
        digest.update(contents[name])
    return digest.hexdigest()
