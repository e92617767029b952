"""Settings are checked before anything starts, and a wrong one is named with a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from linearch.config import load_config, parse_setting, profile_names, validate_config
from linearch.errors import ConfigError


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid_and_survives_storage(name: str) -> None:
    config = load_config(name)
    assert config.profile == name
    assert validate_config(config.model_dump(mode="json")) == config


def test_single_settings_win_over_a_file_which_wins_over_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 3\n[model]\nd_model = 32\nn_heads = 4\n")
    config = load_config("cpu", file, {"model.n_heads": 1})
    assert (config.seed, config.model.d_model, config.model.n_heads) == (3, 32, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model.dmodel": 3}, "did you mean 'model.d_model'"),
        ({"d_model": 3}, "did you mean 'model.d_model'"),
        ({"model.d_model": 63}, "must divide"),
        ({"seed": -1}, "seed"),
        ({"ladder.rung_tokens": [5, 5]}, "must grow"),
        ({"proposer.kind": "oracle"}, "proposer.kind"),
        ({"data.max_bytes": 1000}, "max_bytes is for other corpora"),
        ({"training.learning_rates": [-1, 1e-3]}, r"learning_rates\.0.*greater than 0 \(got -1"),
        ({"training.learning_rates": [1e-3, float("inf")]}, r"learning_rates\.1.*finite"),
        ({"recall.learning_rates": [0.0]}, r"recall\.learning_rates\.0.*greater than 0"),
        ({"training.betas": [0.9, 1]}, r"betas\.1.*less than 1"),
        ({"training.betas": [-0.1, 0.9]}, r"betas\.0.*greater than or equal to 0"),
        ({"training.clip_norm": float("inf")}, r"clip_norm.*finite"),
        ({"gates.tolerance": float("nan")}, r"gates\.tolerance.*finite"),
        ({"ladder.rung_tokens": [-4096, 4096]}, r"rung_tokens\.0.*greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config("cpu", settings=settings)


def test_an_unknown_profile_and_an_unreadable_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of"):
        load_config("laptop")
    with pytest.raises(ConfigError, match="Cannot read"):
        load_config("cpu", tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("seed = = 1")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        load_config("cpu", tmp_path / "broken.toml")


def test_settings_are_read_as_json_where_they_are_json() -> None:
    assert parse_setting("a.b=[1, 2]") == ("a.b", [1, 2])
    assert parse_setting("a=text") == ("a", "text")
    with pytest.raises(ConfigError, match=r"key\.sub=value"):
        parse_setting("novalue")


def test_a_corpus_keeps_its_place_wherever_a_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for corpus, kept in [
        ("texts/book.txt", str(tmp_path / "texts/book.txt")),
        ("stdlib", "stdlib"),
        ("hf:owner/name", "hf:owner/name"),
    ]:
        assert load_config("cpu", settings={"data.corpus": corpus}).data.corpus == kept
