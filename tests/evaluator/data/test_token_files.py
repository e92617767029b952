"""Token files: how they are read, and what must be known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linearch.config import DataConfig
from linearch.errors import ConfigError, PreflightError
from linearch.evaluator.corpus import Corpus, load_corpus, validation_text

_META = {"vocab_size": 500, "bytes_per_token": 4.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train.bin and val.bin as nanoGPT writes them, of ids below 500."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name, n_tokens in (("train", 4000), ("val", 1001)):
        ids(n_tokens).tofile(folder / f"{name}.bin")
    (folder / "meta.json").write_text(json.dumps(_META))
    return folder


def ids(n_tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, size=n_tokens).astype("<u2")


def load(folder: Path, vocab_size: int = 512, **settings: Any) -> Corpus:
    data = DataConfig(corpus=str(folder), **settings)
    return load_corpus(data, folder.parent / "cache", vocab_size)


def read(corpus: Corpus, part: str) -> np.ndarray:
    return np.fromfile(getattr(corpus, part).path, dtype=corpus.vocabulary.token_type)


def test_the_second_half_of_validation_is_the_shard(folder: Path) -> None:
    corpus = load(folder)

    assert np.array_equal(read(corpus, "train"), ids(4000))
    assert np.array_equal(read(corpus, "val"), ids(1001)[:500])
    assert np.array_equal(read(corpus, "test"), ids(1001)[500:])
    assert corpus.n_documents is None


def test_a_test_file_is_the_shard(folder: Path) -> None:
    ids(300, seed=1).tofile(folder / "test.bin")
    corpus = load(folder)
    assert np.array_equal(read(corpus, "val"), ids(1001))
    assert np.array_equal(read(corpus, "test"), ids(300, seed=1))


def test_the_mean_of_bytes_makes_bits_per_byte(folder: Path) -> None:
    corpus = load(folder)
    assert corpus.train.n_bytes == 18_000
    assert corpus.vocabulary.lengths()[[0, 499]].tolist() == [4.5, 4.5]
    assert corpus.unigram_bits == pytest.approx(np.log2(500) / 4.5, rel=0.1)
    assert validation_text(corpus, 100) is None


def test_a_tokeniser_beside_the_files_says_each_tokens_bytes(folder: Path) -> None:
    names = {chr(0x4E + i % 20) * (1 + i // 20): i for i in range(500)}
    tokenizer = {"model": {"vocab": names}, "decoder": {"type": "ByteLevel"}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    corpus = load(folder)

    text = validation_text(corpus, 1 << 20)
    assert text is not None
    assert corpus.val.n_bytes == len(text) == int((1 + ids(1001)[:500] // 20).sum())


def test_shards_with_headers_are_read_in_order_without_them(folder: Path) -> None:
    (folder / "train.bin").unlink()
    for number in (2, 1):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, 700
        content = header.tobytes() + ids(700, seed=number).tobytes()
        (folder / f"fineweb_train_{number:06}.bin").write_bytes(content)

    assert np.array_equal(
        read(load(folder), "train"), np.concatenate([ids(700, seed=1), ids(700, seed=2)])
    )


def test_ids_of_a_large_vocabulary_take_four_bytes(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps({**_META, "vocab_size": 100_000}))
    large = ids(4000).astype("<u4") + 90_000
    for name in ("train", "val"):
        large.tofile(folder / f"{name}.bin")

    corpus = load(folder, vocab_size=100_000)

    assert corpus.vocabulary.token_type == "uint32"
    assert np.array_equal(read(corpus, "train"), large)


@pytest.mark.parametrize("changed", ["train.bin", "val.bin", "meta.json"])
def test_other_tokens_or_bytes_are_another_corpus(folder: Path, changed: str) -> None:
    before = load(folder)
    if changed == "meta.json":
        (folder / changed).write_text(json.dumps({**_META, "bytes_per_token": 4.4}))
    else:
        ids(2000, seed=9).tofile(folder / changed)
    assert load(folder).identity != before.identity


def test_without_a_word_on_their_bytes_tokens_are_refused(folder: Path) -> None:
    (folder / "meta.json").unlink()
    with pytest.raises(PreflightError, match=r"put the tokenizer\.json .* or a meta\.json"):
        load(folder)


@pytest.mark.parametrize("meta", ["{}", "{", '{"vocab_size": 500, "bytes_per_token": 0}', "[]"])
def test_a_meta_file_that_does_not_say_it_is_refused(folder: Path, meta: str) -> None:
    (folder / "meta.json").write_text(meta)
    with pytest.raises(PreflightError, match="does not say vocab_size and bytes_per_token"):
        load(folder)


def test_a_model_of_fewer_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"500 .* the model 256: set model\.vocab_size to 500"):
        load(folder, vocab_size=256)


def test_an_id_beyond_the_vocabulary_is_refused(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps({**_META, "vocab_size": 300}))
    with pytest.raises(PreflightError, match=r"the token 49\d, and its vocabulary has 300"):
        load(folder)


def test_tokens_without_validation_are_refused(folder: Path) -> None:
    (folder / "val.bin").unlink()
    with pytest.raises(PreflightError, match=r"no \*val\*\.bin"):
        load(folder)


def test_too_few_tokens_are_refused(folder: Path) -> None:
    ids(100).tofile(folder / "val.bin")
    with pytest.raises(PreflightError, match="4000 training, 50 validation and 50 test tokens"):
        load(folder)


@pytest.mark.parametrize("cut", [3, 600])
def test_a_file_that_is_cut_is_refused(folder: Path, cut: int) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 700
    content = header.tobytes() + ids(700).tobytes()
    (folder / "val.bin").write_bytes(content[:-cut])
    with pytest.raises(PreflightError, match=r"val\.bin does not hold the 700 tokens"):
        load(folder)


@pytest.mark.parametrize("settings", [{"tokenizer": "bpe"}, {"max_bytes": 5}])
def test_settings_for_text_are_refused(folder: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="holds tokens already"):
        load(folder, **settings)
