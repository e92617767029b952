"""Which bytes a token stands for, read from a tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linearch.errors import PreflightError
from linearch.evaluator.data.vocabulary import BYTES, Vocabulary, read_tokenizer


def write(folder: Path, vocab: dict[str, int], **others: Any) -> Path:
    table = {"model": {"vocab": vocab}, "decoder": {"type": "ByteLevel"}, **others}
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(table))
    return file


def test_each_character_of_a_token_is_a_byte_and_a_special_token_is_none(tmp_path: Path) -> None:
    special = {"id": 3, "content": "<|end|>", "special": True}
    names = {"a": 0, "Ġthe": 1, "Ã©Ċ": 2, "<|end|>": 3, "z": 5}
    vocabulary = read_tokenizer(write(tmp_path, names, added_tokens=[special]))

    assert vocabulary.texts == (b"a", b" the", "é\n".encode(), b"", b"", b"z")
    assert vocabulary.lengths().tolist() == [1, 4, 3, 0, 0, 1]
    assert vocabulary.decode(np.array([1, 3, 2])) == " theé\n".encode()


def test_a_token_added_by_name_is_its_own_text(tmp_path: Path) -> None:
    added = {"id": 1, "content": "ü", "special": False}
    assert read_tokenizer(write(tmp_path, {"a": 0}, added_tokens=[added])).texts == (
        b"a",
        "ü".encode(),
    )


@pytest.mark.parametrize(
    "others", [{"decoder": {"type": "WordPiece"}}, {"decoder": None}, {"model": {"type": "BPE"}}]
)
def test_other_tokenisers_than_byte_level_bpe_are_refused(
    tmp_path: Path, others: dict[str, Any]
) -> None:
    with pytest.raises(PreflightError, match=r"not the tokenizer\.json of a byte-level BPE"):
        read_tokenizer(write(tmp_path, {"a": 0}, **others))


def test_a_token_with_a_character_that_is_no_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="byte-level"):
        read_tokenizer(write(tmp_path, {"▁the": 0}))


@pytest.mark.parametrize(
    ("size", "kind"),
    [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_tokens_take_the_smallest_type_that_holds_them(size: int, kind: str) -> None:
    assert Vocabulary(size=size, mean_bytes=4.0).token_type == kind


def test_bytes_are_themselves() -> None:
    text = bytes(range(256))
    assert BYTES.decode(np.frombuffer(text, dtype=np.uint8)) == text
    assert BYTES.lengths().sum() == 256
