"""Stored architectures run in the user's process only where they are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from linearch.errors import CandidateRejected, LinearchError, UntrustedSource
from linearch.search_space import (
    baseline_source,
    mixer_from_source,
    model_from_facts,
    source_hash,
)

BASELINE = baseline_source("gated_deltanet")
STRANGER = BASELINE + "\n_STRANGER = True\n"
SIZES = {
    "vocab_size": 17,
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "mlp_width": 24,
    "pattern": "LA",
    "window": 4,
}


def facts(**changes: Any) -> dict[str, Any]:
    return {"source": BASELINE, **SIZES, **changes}


def test_a_baseline_is_trusted_by_itself() -> None:
    assert mixer_from_source(BASELINE).__name__ == "Mixer"


def test_an_unknown_source_is_refused_with_what_to_do_and_not_run() -> None:
    tripwire = STRANGER + "\n_BOOM = 1 / 0\n"
    with pytest.raises(UntrustedSource, match=r"gates.*trust=True"):
        mixer_from_source(tripwire, trusted_hashes={source_hash(STRANGER)})


def test_an_audited_hash_opens_the_way() -> None:
    audited = {source_hash(STRANGER)}
    assert mixer_from_source(STRANGER, audited).__name__ == "Mixer"
    assert mixer_from_source(STRANGER, audited.__contains__).__name__ == "Mixer"


def test_the_users_word_opens_the_way_but_not_for_what_breaks_the_form() -> None:
    assert mixer_from_source(STRANGER, trust=True).__name__ == "Mixer"
    with pytest.raises(CandidateRejected, match="importing `os`"):
        mixer_from_source("import os\n" + BASELINE.split('"""')[2], trust=True)


@pytest.mark.parametrize("as_file", [False, True])
def test_weights_come_back_exactly(as_file: bool, tmp_path: Path) -> None:
    original = model_from_facts(facts())
    weights: bytes | Path = safetensors.torch.save(original.state_dict())
    if as_file:
        file = tmp_path / "weights.safetensors"
        file.write_bytes(weights)
        weights = file
    replayed = model_from_facts(facts(), weights=weights)
    tokens = torch.randint(17, (1, 9))
    assert torch.equal(original(tokens)[0], replayed(tokens)[0])
    assert not replayed.training


def test_weights_of_another_size_are_refused() -> None:
    weights = safetensors.torch.save(model_from_facts(facts()).state_dict())
    with pytest.raises(LinearchError, match="do not fit the model"):
        model_from_facts(facts(mlp_width=25), weights=weights)


def test_unreadable_weights_are_refused(tmp_path: Path) -> None:
    for weights in (b"not safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(LinearchError, match="cannot be read as safetensors"):
            model_from_facts(facts(), weights=weights)


def test_missing_and_impossible_facts_are_named() -> None:
    with pytest.raises(LinearchError, match="lacks source, pattern"):
        model_from_facts({k: v for k, v in SIZES.items() if k != "pattern"})
    with pytest.raises(LinearchError, match="n_heads=3 must divide d_model=16"):
        model_from_facts(facts(n_heads=3))


def test_a_stored_stranger_needs_trust_too() -> None:
    with pytest.raises(UntrustedSource):
        model_from_facts(facts(source=STRANGER))
