"""A corpus: tokens for training, validation and the test shard, identified by what they hold.

Whatever the tokeniser, what is scored is bits per byte: a vocabulary says which bytes each token
stands for. Results are comparable only between runs whose corpus has the same identity: the
standard library changes with the Python version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import DataConfig
from ..errors import ConfigError, PreflightError
from .data.parts import PARTS, Part, kept_parts, write_parts
from .data.sources import Source, open_source
from .data.vocabulary import BYTES, Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Three files of tokens; `identity` hashes documents, how they are split, and the tokeniser.

    `unigram_bits` is the entropy of validation, per byte, given only how often each token occurs
    there: a model above it has learned nothing. `n_documents` is None where only tokens are known.
    """

    name: str
    identity: str
    vocabulary: Vocabulary
    train: Part
    val: Part
    test: Part
    n_documents: int | None
    unigram_bits: float


def load_corpus(data: DataConfig, folder: Path, vocab_size: int = BYTES.size) -> Corpus:
    """Reads the configured text or tokens and keeps their three parts as files in `folder`.

    `vocab_size` is the model's, and that of a BPE that is trained here. Files of the same identity
    are used again; several processes may do this at once. Raises PreflightError or ConfigError,
    each with what to do, for a corpus that cannot be read or used.
    """
    source = open_source(data, folder, vocab_size)
    _require_vocabulary(source, vocab_size)
    kept = kept_parts(folder, source.identity)
    if kept is None:
        tokens, n_documents = source.read()
        sizes = {part: sum(map(len, tokens[part])) for part in PARTS}
        _require_windows(source.name, sizes, data.seq_len)
        kept = write_parts(folder, source.identity, tokens, source.vocabulary, n_documents)
    sizes = {part: kept.parts[part].n_tokens for part in PARTS}
    _require_windows(source.name, sizes, data.seq_len)
    return Corpus(
        name=source.name,
        identity=source.identity,
        vocabulary=source.vocabulary,
        **kept.parts,
        n_documents=kept.n_documents,
        unigram_bits=kept.unigram_bits,
    )


def validation_windows(corpus: Corpus, seq_len: int, n_windows: int) -> NDArray[Any]:
    """[n_windows, seq_len + 1]: inputs are all tokens but the last, labels all but the first.

    The windows lie evenly over the validation tokens, so over its documents, and never overlap.
    Raises PreflightError when the corpus is too small for so many.
    """
    return _even_windows(corpus, corpus.val, "validation part", seq_len, n_windows)


def shard_windows(corpus: Corpus, seq_len: int, n_windows: int) -> NDArray[Any]:
    """`validation_windows` of the test shard, which is for finalists alone."""
    return _even_windows(corpus, corpus.test, "test shard", seq_len, n_windows)


def validation_text(corpus: Corpus, most_bytes: int) -> bytes | None:
    """How the validation text begins, or None where only its tokens are known."""
    text = corpus.vocabulary.decode(_tokens(corpus, corpus.val)[:most_bytes])
    return None if text is None else text[:most_bytes]


def _even_windows(
    corpus: Corpus, part: Part, called: str, seq_len: int, n_windows: int
) -> NDArray[Any]:
    length = seq_len + 1
    n_fitting = part.n_tokens // length
    if n_fitting < n_windows:
        raise PreflightError(
            f"The {called} of the corpus {corpus.name!r} has {part.n_tokens} tokens: "
            f"{n_fitting} windows of {length}, not {n_windows}. Use more text, or lower "
            "data.val_windows or data.seq_len."
        )
    starts = np.arange(n_windows) * (part.n_tokens - length) // max(n_windows - 1, 1)
    return np.asarray(_tokens(corpus, part)[starts[:, None] + np.arange(length)])


def _tokens(corpus: Corpus, part: Part) -> NDArray[Any]:
    return np.memmap(part.path, dtype=corpus.vocabulary.token_type, mode="r")


def _require_vocabulary(source: Source, vocab_size: int) -> None:
    if source.vocabulary.size > vocab_size:
        raise ConfigError(
            f"The corpus {source.name!r} has {source.vocabulary.size} different tokens and the "
            f"model {vocab_size}: set model.vocab_size to {source.vocabulary.size} or more."
        )


def _require_windows(name: str, sizes: Mapping[str, int], seq_len: int) -> None:
    if min(sizes.values()) <= seq_len:
        raise PreflightError(
            f"The corpus {name!r} is too small: {sizes['train']} training, {sizes['val']} "
            f"validation and {sizes['test']} test tokens do not each hold a window of {seq_len} "
            "tokens and their labels. Use more text or lower data.seq_len."
        )
