"""How many bytes a token stands for: what makes bits per byte the same unit for every tokeniser.

Byte-level BPE follows GPT-2: each character of a token's name stands for one byte, so a vocabulary
says exactly which bytes its tokens are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import PreflightError


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The bytes of each id, none for special tokens; or, where only that is known, their mean."""

    size: int
    texts: tuple[bytes, ...] | None = None
    mean_bytes: float | None = None

    def __post_init__(self) -> None:
        assert (self.texts is None) != (self.mean_bytes is None)

    @property
    def token_type(self) -> str:
        """The smallest unsigned type that holds every id."""
        return next(kind for kind in ("uint8", "uint16", "uint32") if self.size - 1 <= _most(kind))

    def lengths(self) -> NDArray[np.float64]:
        """[size]: bytes of each id."""
        if self.texts is None:
            return np.full(self.size, self.mean_bytes)
        return np.array([len(text) for text in self.texts], dtype=np.float64)

    def decode(self, tokens: NDArray[Any]) -> bytes | None:
        """The text of some tokens, or None where their bytes are not known."""
        if self.texts is None:
            return None
        return b"".join([self.texts[token] for token in tokens.tolist()])


BYTES = Vocabulary(size=256, texts=tuple(bytes([byte]) for byte in range(256)))


def read_tokenizer(file: Path) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, as the library `tokenizers` writes it.

    Raises PreflightError for a tokeniser that is not byte-level BPE.
    """
    try:
        table = json.loads(file.read_bytes())
        if "ByteLevel" not in _kinds(table["decoder"]):
            raise ValueError("its decoder is not ByteLevel")
        return _vocabulary(table["model"]["vocab"], table.get("added_tokens") or [])
    except OSError as error:
        raise PreflightError(f"Cannot read the tokeniser {file}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PreflightError(
            f"{file} is not the tokenizer.json of a byte-level BPE ({error!r}), so how many bytes "
            "its tokens stand for cannot be known."
        ) from None


def _vocabulary(ids: Mapping[str, int], added: list[Mapping[str, Any]]) -> Vocabulary:
    apart = {token["id"]: b"" if token["special"] else token["content"].encode() for token in added}
    known = {number: _bytes_of(name) for name, number in ids.items() if number not in apart}
    known |= apart
    size = max(known) + 1
    return Vocabulary(size=size, texts=tuple(known.get(number, b"") for number in range(size)))


def _kinds(decoder: Mapping[str, Any]) -> set[str]:
    parts = [decoder, *decoder.get("decoders", [])]
    return {part["type"] for part in parts}


def _bytes_of(name: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in name)


def _byte_alphabet() -> dict[str, int]:
    """Printable bytes stand for themselves, the others for the characters from 256 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    shown = {chr(byte): byte for byte in printable}
    return shown | {chr(256 + place): byte for place, byte in enumerate(others)}


def _most(kind: str) -> int:
    return int(np.iinfo(kind).max)


_BYTE_OF = _byte_alphabet()
