"""BPE: lossless, the same each time, trained on nothing that is held out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import Corpus, load_corpus, validation_text
from linearch.evaluator.data import bpe
from linearch.evaluator.data.bpe import encode, train_bpe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty documents of words, some not English; each names itself."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        text = f"document{i} größer  als 世界\r\n\tdef f(x): return 'don't'\n" * 20
        (folder / f"{i}.txt").write_bytes(text.encode())
    return folder


def load(folder: Path, vocab_size: int = 400, tokenizer: str = "bpe", cache: str = "a") -> Corpus:
    data = DataConfig(corpus=str(folder), tokenizer=tokenizer, seq_len=16)
    return load_corpus(data, folder.parent / cache, vocab_size)


def text_of(corpus: Corpus, part: str) -> bytes:
    file = getattr(corpus, part).path
    text = corpus.vocabulary.decode(np.fromfile(file, dtype=corpus.vocabulary.token_type))
    assert text is not None
    return text


def test_the_tokens_stand_for_exactly_the_bytes_of_each_part(folder: Path) -> None:
    in_bytes, coded = load(folder, tokenizer="bytes"), load(folder)

    for part in ("train", "val", "test"):
        expected = text_of(in_bytes, part)
        assert text_of(coded, part) == expected
        assert getattr(coded, part).n_bytes == len(expected)
        assert getattr(coded, part).n_tokens < len(expected) / 2
    assert coded.vocabulary.size <= 400
    assert coded.vocabulary.token_type == "uint16"
    assert coded.unigram_bits < in_bytes.unigram_bits
    assert validation_text(coded, 50) == text_of(in_bytes, "val")[:50]


def test_the_same_text_gives_the_same_tokeniser_and_identity(folder: Path) -> None:
    one, two = load(folder, cache="one"), load(folder, cache="two")

    assert one.identity == two.identity
    assert one.val.path.read_bytes() == two.val.path.read_bytes()


def test_another_tokeniser_is_another_corpus(folder: Path) -> None:
    corpora = [load(folder, 400), load(folder, 300), load(folder, 400, "bytes")]
    assert len({corpus.identity for corpus in corpora}) == 3


def test_no_token_is_learned_from_what_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        word = "".join(chr(ord("a") + (i * 7 + j * j) % 26) for j in range(9))
        (folder / f"{i}.txt").write_text(f"{word} " * 60)

    corpus = load(folder, 3000)

    (tokenizer,) = (tmp_path / "a").glob("*.tokenizer.json")
    tokens = set(json.loads(tokenizer.read_text())["model"]["vocab"])
    train = text_of(corpus, "train").decode()
    words = set((text_of(corpus, "val") + text_of(corpus, "test")).decode().split())
    assert words
    assert not {word for word in words if word not in train and f"Ġ{word}" in tokens}


def test_what_is_kept_needs_the_library_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load(folder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert load(folder) == made
    with pytest.raises(PreflightError, match=r"pip install 'linearch\[data\]'"):
        load(folder, cache="another")


def test_long_texts_are_cut_after_lines_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "_PIECE_CHARACTERS", 20)
    monkeypatch.setattr(bpe, "_PIECES_AT_ONCE", 3)
    texts = ["größer als\n".encode() * 30, b"x" * 70, b""]
    tokenizer = train_bpe(texts, 300)

    coded = np.concatenate(encode(tokenizer, texts, "uint16"))

    names = {number: name for name, number in json.loads(tokenizer)["model"]["vocab"].items()}
    assert sum(len(names[token]) for token in coded.tolist()) == sum(map(len, texts))


def test_what_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "0.txt").write_bytes(b"text \xff text" * 9)
    with pytest.raises(PreflightError, match=r"not all UTF-8.*xff text.*set data\.tokenizer"):
        load(folder)


def test_a_vocabulary_of_no_more_than_bytes_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab_size=256 leaves a BPE no tokens"):
        load(folder, vocab_size=256)


def test_a_text_with_few_merges_has_a_small_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("ab\n" * 4000)
    settings: dict[str, Any] = {"corpus": str(file), "tokenizer": "bpe", "seq_len": 16}
    assert load_corpus(DataConfig(**settings), tmp_path / "a", 4000).vocabulary.size < 270
