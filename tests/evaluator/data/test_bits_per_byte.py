"""The same text as bytes and as BPE, trained on and scored in the sandbox: one unit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from linearch.config import DataConfig, ModelConfig, RunConfig
from linearch.evaluator import Corpus, TrialSpec, load_corpus
from linearch.evaluator.assignment import corpus_assignment
from linearch.evaluator.sandbox.supervisor import Sandbox
from linearch.evaluator.trial import Trial
from linearch.search_space.backbone import Backbone, BackboneConfig
from linearch.search_space.loading import load_mixer_class
from linearch.search_space.parameters import count_parameters, match_mlp_width

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
# Words are drawn at random, so no model of whatever tokens needs fewer bits than these.
_ENTROPY_BPB = math.log2(len(_WORDS)) / (1 + sum(map(len, _WORDS)) / len(_WORDS))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("words")
    for i in range(60):
        (folder / f"{i}.txt").write_text(" ".join(rng.choices(_WORDS, k=400)))
    return folder


def _train(
    config: RunConfig, words: Path, folder: Path, sandbox: Sandbox, source: str, vocab_size: int
) -> tuple[Corpus, float]:
    """The corpus, and val_bpb after 120 steps."""
    model = ModelConfig(d_model=16, param_budget=20_000, vocab_size=vocab_size)
    tokenizer = "bytes" if vocab_size == 256 else "bpe"
    data = DataConfig(corpus=str(words), tokenizer=tokenizer, seq_len=32, val_windows=16)
    config = config.model_copy(update={"model": model, "data": data})
    spec = TrialSpec(
        source=source,
        pattern="L",
        mlp_width=_matched_width(config, source),
        task="corpus",
        rung=0,
        tokens=120 * 4 * 32,
        seed=0,
        learning_rate=1e-2,
    )
    corpus = load_corpus(data, folder, vocab_size)
    assignment = corpus_assignment(spec, config, corpus, folder)
    result = Trial(sandbox, config, "cpu", spec, assignment, {}).run()
    val_bpb = result.metrics.get("val_bpb")
    assert val_bpb is not None, result.reason
    return corpus, val_bpb


def _matched_width(config: RunConfig, source: str) -> int:
    mixer, model = load_mixer_class(source, "counted"), config.model

    def count(width: int) -> int:
        sizes = BackboneConfig(
            vocab_size=model.vocab_size,
            d_model=model.d_model,
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            mlp_width=width,
        )
        return count_parameters(Backbone(sizes, mixer))

    return match_mlp_width(count, model.param_budget, model.param_tolerance)


def test_both_learn_and_neither_goes_below_what_the_text_holds(
    config: RunConfig,
    words: Path,
    tmp_path: Path,
    sandbox: Sandbox,
    mixer_source: Callable[..., str],
) -> None:
    in_bytes, bpb_of_bytes = _train(config, words, tmp_path, sandbox, mixer_source(), 256)
    coded, bpb_of_tokens = _train(config, words, tmp_path, sandbox, mixer_source(), 300)

    assert coded.val.n_bytes == in_bytes.val.n_bytes
    assert coded.val.n_tokens < in_bytes.val.n_tokens / 4  # a word is one token
    assert 0.97 * _ENTROPY_BPB < bpb_of_tokens < 1.2 * _ENTROPY_BPB
    assert 0.97 * _ENTROPY_BPB < bpb_of_bytes < in_bytes.unigram_bits
