"""A verification is a run whose candidates are the finalists of another."""

from __future__ import annotations

from typing import Any

import pytest

from linearch.agents.finals import Finals, finals_config
from linearch.agents.preflight import make_proposer
from linearch.agents.proposers.finalists import FinalistsProposer
from linearch.agents.proposers.proposal import Evidence, NothingLeft
from linearch.config import RunConfig, validate_config
from linearch.db import Store
from linearch.errors import ConfigError, StoreError
from linearch.evaluator.results import GateResult, Judgement, TrialResult
from linearch.evaluator.tasks import SUITES

PASSED = GateResult(gate="causality", passed=True)
NOTHING = Evidence(candidates=(), baselines=(), objectives=("val_bpb",))
SCORES = {
    "softmax_attention": 2.0,
    "mamba2": 2.4,
    "gated_deltanet": 2.5,
    "poor": 2.9,
    "good": 2.3,
    "best": 2.2,
}


@pytest.fixture
def searched(store: Store) -> str:
    """A run with three baselines and three candidates, measured on both rungs."""
    config = RunConfig()
    run_id = store.create_run(config.model_dump(mode="json"), {}, config.seed)
    for name, val_bpb in SCORES.items():
        is_baseline = name not in {"poor", "good", "best"}
        row = store.add_architecture(
            run_id,
            name=name,
            motivation="because",
            expectation="less",
            origin="baseline" if is_baseline else "grammar",
            source=f"# {name}",
            source_hash=name,
            normalised_hash=name,
            pattern="L",
            is_reference=name == "softmax_attention",
        )
        store.record_judgement(row.id, Judgement(results=(PASSED,), mlp_width=16))
        for rung, tokens in enumerate(config.ladder.rung_tokens):
            trial = store.enqueue_trial(
                run_id,
                row.id,
                task="corpus",
                rung=rung,
                tokens=tokens,
                seed=0,
                learning_rate=3e-3,
            )
            epoch = store.start_trial(trial.id)
            assert epoch is not None
            result = TrialResult(status="done", metrics={"val_bpb": val_bpb + 1 - rung})
            assert store.finish_trial(trial.id, epoch, result)
    return run_id


def names(store: Store, config: RunConfig) -> list[str]:
    return [store.architecture(id_).name for id_ in config.proposer.finalists]


def test_the_best_candidates_meet_the_hardest_baseline_from_five_seeds(
    store: Store, searched: str
) -> None:
    config = finals_config(store, Finals(top=2))
    assert names(store, config) == ["best", "good"]
    assert config.baselines == ("gated_deltanet", "mamba2", "softmax_attention")
    assert (config.ladder.elite, config.ladder.elite_seeds) == (2, 5)
    assert config.ladder.noise_seeds == config.ladder.baseline_seeds == 1 + 5
    assert config.ladder.rung_tokens == RunConfig().ladder.rung_tokens[-1:]
    assert set(config.recall.tasks) == set(SUITES["slice"])
    assert config.data.test_windows == RunConfig().data.val_windows


def test_a_verification_may_not_begin_from_a_seed_of_its_search(
    store: Store, searched: str
) -> None:
    row = store.queries.leaderboard(searched)[0]
    store.enqueue_trial(
        searched, row.id, task="corpus", rung=0, tokens=1, seed=7, learning_rate=3e-3
    )
    assert finals_config(store, Finals()).seed == 8
    assert finals_config(store, Finals(settings={"seed": 100})).seed == 100
    with pytest.raises(ConfigError, match=r"seed=7 .* from 8 on"):
        finals_config(store, Finals(settings={"seed": 7}))


def test_seeds_of_every_run_that_finalists_come_from_are_left_out(
    store: Store, searched: str
) -> None:
    best = store.queries.leaderboard(searched)[0].id
    config = finals_config(store, Finals(which=(best,)))
    again = store.create_run(config.model_dump(mode="json"), {}, config.seed)
    row = store.add_architecture(
        again,
        name="best",
        motivation="because",
        expectation="less",
        origin="grammar",
        source="# best",
        source_hash="best",
        normalised_hash="best",
        pattern="L",
    )
    store.enqueue_trial(again, row.id, task="corpus", rung=0, tokens=1, seed=40, learning_rate=3e-3)
    assert finals_config(store, Finals(which=(best, row.id))).seed == 41


def test_a_second_verification_takes_seeds_that_the_first_did_not(
    store: Store, searched: str
) -> None:
    best = store.queries.leaderboard(searched)[0].id
    first = finals_config(store, Finals(run=searched))
    verified = store.create_run(first.model_dump(mode="json"), {}, first.seed)
    last = first.seed + first.ladder.elite_seeds
    store.enqueue_trial(
        verified, best, task="corpus", rung=0, tokens=1, seed=last, learning_rate=3e-3
    )
    assert finals_config(store, Finals(run=searched)).seed == last + 1
    # Asked for, the first one's are taken: they chose no finalist.
    again = Finals(run=searched, settings={"seed": first.seed})
    assert finals_config(store, again).seed == first.seed


def test_the_models_are_larger(store: Store, searched: str) -> None:
    before = RunConfig().model
    after = finals_config(store, Finals(scale=2)).model
    assert (after.d_model, after.n_heads) == (2 * before.d_model, 2 * before.n_heads)
    assert 3 < after.param_budget / before.param_budget < 4


def test_settings_and_names_are_laid_over(store: Store, searched: str) -> None:
    rows = store.queries.leaderboard(searched)
    poor = next(row.id for row in rows if row.name == "poor")
    settings: dict[str, Any] = {"recall.enabled": False, "baselines": ["gated_deltanet"]}
    config = finals_config(store, Finals(which=(poor,), settings=settings))
    assert names(store, config) == ["poor"]
    assert not config.recall.enabled
    assert config.baselines == ("gated_deltanet",)


@pytest.mark.parametrize(
    ("dotted", "says"),
    [
        ("foo.bar", "Unknown setting 'foo'"),
        ("model.dmodel", r"Unknown setting 'model\.dmodel'; did you mean 'model\.d_model'\?"),
    ],
)
def test_an_unknown_setting_is_named_as_a_search_names_it(
    store: Store, searched: str, dotted: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        finals_config(store, Finals(settings={dotted: 1}))


def test_a_setting_of_a_task_reaches_its_table(store: Store, searched: str) -> None:
    settings = {"recall.sizes.mqar.vocab_size": 64}
    config = finals_config(store, Finals(settings=settings))
    assert config.recall.sizes == {"mqar": {"vocab_size": 64}}


def test_a_run_without_a_measured_candidate_has_none_to_verify(store: Store) -> None:
    store.create_run(RunConfig().model_dump(mode="json"), {}, 0)
    with pytest.raises(StoreError, match="no measured candidate"):
        finals_config(store, Finals())


def test_each_finalist_is_proposed_once_as_it_was_stored(store: Store, searched: str) -> None:
    config = finals_config(store, Finals(top=2))
    proposer = make_proposer(config, store)
    first = proposer.propose(NOTHING, 0)
    assert (first.name, first.source, first.origin) == ("best", "# best", "grammar")
    assert proposer.propose(NOTHING, 1).name == "good"
    with pytest.raises(NothingLeft):
        proposer.propose(NOTHING, 2)


def test_a_verification_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"proposer\.finalists is empty"):
        FinalistsProposer(store, ())
    config = validate_config({"proposer": {"kind": "finalists", "finalists": ["NOPE"]}})
    with pytest.raises(StoreError, match="no architecture 'NOPE'"):
        make_proposer(config, store)
