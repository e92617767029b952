"""What cannot be measured is refused before anything is trained, with what to change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linearch.agents import preflight
from linearch.config import load_config
from linearch.errors import ConfigError, LinearchError
from linearch.evaluator.tasks import TASKS, Rows, Split, Task, next_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting(Task):
    """Counts on beyond the vocabulary that it claims to have."""

    vocab_size: int = 8
    seq_len: int = 10

    @property
    def chance_level(self) -> float:
        return 1 / self.vocab_size

    def generate(self, n_rows: int, rng: np.random.Generator, split: Split) -> Rows:
        inputs = np.tile(np.arange(self.seq_len), (n_rows, 1))
        return inputs, next_tokens(inputs)


@pytest.fixture(autouse=True)
def any_containment_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check_containment", lambda config: None)


def check(book: Path, **settings: Any) -> str:
    small = {
        "data.corpus": str(book),
        "data.val_windows": 8,
        "ladder.rung_tokens": [4096, 131_072],
        "workers.device": "cpu",
        "recall.enabled": False,
    }
    config = load_config("cpu", settings={**small, **settings})
    return preflight.check_before_start(config, ray_address=None)


def test_a_corpus_that_is_large_enough_passes(book: Path) -> None:
    assert check(book) == "cpu"


def test_a_rung_that_goes_over_its_corpus_many_times_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match=r"measure memory: use more text, or lower ladder\.rung"):
        check(book, **{"ladder.rung_tokens": [4096, 1_000_000]})


def test_a_grid_that_names_one_rate_twice_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match="names a rate twice, so it is no grid of 2 points"):
        check(book, **{"training.learning_rates": [0.003, 0.003]})


def test_a_fitness_without_its_objective_is_refused(book: Path) -> None:
    with pytest.raises(ConfigError, match="add 'val_bpb' to objectives"):
        check(book, fitness="asi-arch", objectives=["state_bytes"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ladder.rung_tokens": [1000, 131_072]}, r"1,000 tokens is less than one batch of 1,024"),
        ({"model.vocab_size": 2000}, r"128,000 parameters .* model\.param_budget is 120,000"),
        ({"model.vocab_size": 100}, r"256 different tokens and the model 100: set model\.vocab_si"),
        ({"data.tokenizer": "bpe"}, "leaves a BPE no tokens beside the 256 bytes"),
        ({"data.val_windows": 1000}, r"1000\. Use more text, or lower data\.val_windows"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(
    book: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(LinearchError, match=says):
        check(book, **settings)


def test_a_corpus_in_bpe_passes_with_a_vocabulary_of_its_own(book: Path) -> None:
    settings = {"data.tokenizer": "bpe", "model.vocab_size": 300, "data.seq_len": 16}
    assert check(book, **{**settings, "ladder.rung_tokens": [4096, 8192]}) == "cpu"


def test_a_task_whose_ids_exceed_its_vocabulary_is_refused(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "counting", Counting())
    with pytest.raises(ConfigError, match=r"'counting' drew ids .* vocab_size=8 .* up to 9"):
        check(book, **{"recall.enabled": True, "recall.tasks": ["counting"]})
