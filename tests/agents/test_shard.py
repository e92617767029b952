"""The test shard is opened for finalists alone, and a second opening does not go unsaid."""

from __future__ import annotations

import pytest

from linearch.agents.cautions import cautions
from linearch.agents.shard import SHARD_OPENED, check_shard, record_opening
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.errors import ConfigError
from linearch.evaluator.results import GateResult, Judgement, TrialResult

PASSED = GateResult(gate="causality", passed=True)


def measured(store: Store, config: RunConfig, metrics: dict[str, float | None]) -> tuple[str, str]:
    """A run with one measured candidate: their ids."""
    run_id = store.create_run(config.model_dump(mode="json"), {}, config.seed)
    record_opening(store, run_id, config)
    row = store.add_architecture(
        run_id,
        name="best",
        motivation="because",
        expectation="less",
        origin="grammar",
        source="# best",
        source_hash="best",
        normalised_hash="best",
        pattern="L",
        is_reference=False,
    )
    store.record_judgement(row.id, Judgement(results=(PASSED,), mlp_width=16))
    key = {"task": "corpus", "rung": 0, "tokens": 1, "seed": 0, "learning_rate": 3e-3}
    trial = store.enqueue_trial(run_id, row.id, **key)
    epoch = store.start_trial(trial.id)
    assert epoch is not None
    assert store.finish_trial(trial.id, epoch, TrialResult(status="done", metrics=metrics))
    return run_id, row.id


def verified(
    store: Store, finalist: str, *, corpus: str = "stdlib", test_bpb: float | None = 2.1
) -> tuple[str, str]:
    config = validate_config(
        {
            "data": {"test_windows": 8, "corpus": corpus},
            "proposer": {"kind": "finalists", "finalists": [finalist]},
        }
    )
    return measured(store, config, {"val_bpb": 2.0, "test_bpb": test_bpb})


def test_a_search_that_would_open_the_shard_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"test_windows=64 .* leave it at 0 .* `linearch verify`"):
        check_shard(validate_config({"data": {"test_windows": 64}}))
    check_shard(validate_config({"data": {"test_windows": 64}, "proposer": {"kind": "finalists"}}))


def test_an_opening_is_an_event_with_the_run_that_found_its_finalists(store: Store) -> None:
    found, best = measured(store, RunConfig(), {"val_bpb": 2.0})
    first, _ = verified(store, best)
    assert store.queries.events(found, kinds=[SHARD_OPENED]) == ()
    (event,) = store.queries.events(first, kinds=[SHARD_OPENED])
    assert event.data == {"found_in": [found], "windows": 8}


def test_a_second_opening_for_the_same_found_run_is_told(store: Store) -> None:
    found, best = measured(store, RunConfig(), {"val_bpb": 2.0})
    first, again = verified(store, best)
    assert cautions(store, first) == ()
    for finalist in (best, again):  # also by way of the first verification
        (caution,) = cautions(store, verified(store, finalist)[0])[-1:]
        assert f"opened before for what run {found} found, by run {first}" in caution


def test_another_runs_shard_another_corpus_and_one_that_nothing_was_scored_on_are_not_told(
    store: Store,
) -> None:
    _, best = measured(store, RunConfig(), {"val_bpb": 2.0})
    _, other = measured(store, RunConfig(), {"val_bpb": 2.0})
    verified(store, best, test_bpb=None)
    verified(store, best, corpus="hf:owner/name")
    verified(store, other)
    assert cautions(store, verified(store, best)[0]) == ()
