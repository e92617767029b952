"""Byte-level BPE, trained on the training texts alone. The only module that imports tokenizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import PreflightError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST_VOCABULARY = 257  # all bytes and a merge
_MOST_TRAINING_CHARACTERS = 1 << 28  # of a larger corpus the rest changes few merges
_PIECE_CHARACTERS = 1 << 18  # the library takes some hundred bytes of memory a character
_PIECES_AT_ONCE = 64


def train_bpe(texts: Iterable[bytes], vocab_size: int) -> str:
    """A tokenizer.json of at most `vocab_size` tokens; fewer where the text has no more merges."""
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    byte_level = library.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=byte_level.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first(_pieces(texts)), trainer)
    return str(tokenizer.to_str())


def encode(tokenizer: str, texts: Iterable[bytes], token_type: str) -> list[NDArray[Any]]:
    """The tokens of all texts in their order, which stand for exactly their bytes."""
    coder: Tokenizer = _library().Tokenizer.from_str(tokenizer)
    coded = []
    batch: list[str] = []
    for piece in _pieces(texts):
        batch.append(piece)
        if len(batch) == _PIECES_AT_ONCE:
            coded.append(_encode(coder, batch, token_type))
            batch = []
    return [*coded, _encode(coder, batch, token_type)]


def _encode(coder: Tokenizer, pieces: list[str], token_type: str) -> NDArray[Any]:
    ids = [one.ids for one in coder.encode_batch_fast(pieces, add_special_tokens=False)]
    return np.concatenate([np.array(piece, dtype=token_type) for piece in [[], *ids]])


def _pieces(texts: Iterable[bytes]) -> Iterator[str]:
    """The texts, cut after a line where they are long."""
    for text in texts:
        rest = _decoded(text)
        begin = 0
        while len(rest) - begin > _PIECE_CHARACTERS:
            end = rest.rfind("\n", begin, begin + _PIECE_CHARACTERS) + 1
            end = end if end > begin else begin + _PIECE_CHARACTERS
            yield rest[begin:end]
            begin = end
        yield rest[begin:]


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        found = text[max(0, error.start - 20) : error.start + 20]
        raise PreflightError(
            f"The corpus is not all UTF-8, which BPE needs ({error.reason} within {found!r}): "
            "leave out what is not text, or set data.tokenizer to 'bytes'."
        ) from None


def _first(pieces: Iterable[str]) -> Iterator[str]:
    n_characters = 0
    for piece in pieces:
        yield piece
        n_characters += len(piece)
        if n_characters >= _MOST_TRAINING_CHARACTERS:
            return


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise PreflightError(
            "data.tokenizer='bpe' needs the package tokenizers: pip install 'linearch[data]', or "
            "set data.tokenizer to 'bytes'."
        ) from None
    return tokenizers
