"""Finalists are verified in a run of their own: larger, from several seeds, on a suite of tasks.

It is a search like any other, whose proposer hands out what another run has found: the same gates,
the same store, the same leaderboard and findings, and it is resumed in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..config import RunConfig, lay_over, validate_config
from ..db import LeaderboardRow, RunRow, Store
from ..errors import ConfigError, StoreError
from ..evaluator.tasks import SUITES
from .preflight import check_before_start
from .progress import Observer
from .start import Outcome, start_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Finals:
    """What to verify: `top` candidates of `run` (the newest by default), or those of `which`.

    `seeds` is how many speak for each, beside the one that its learning rate is chosen by; `scale`
    multiplies width and heads; `suite` is one of the tasks' suites; `settings` are dotted keys and
    values, laid over the rest.
    """

    run: str | None = None
    which: tuple[str, ...] = ()
    store: str | None = None
    top: int = 3
    seeds: int = 5
    scale: int = 2
    suite: str = "slice"
    settings: dict[str, Any] = field(default_factory=dict)


def run_finals(wanted: Finals, observer: Observer) -> Outcome:
    """Runs it to its end. Raises StoreError where nothing was measured that could be verified."""
    with Store.open(wanted.store, create=False) as store:
        config = finals_config(store, wanted)
        device = check_before_start(config, ray_address=None)
        return start_run(store, config, device, observer)


def finals_config(store: Store, wanted: Finals) -> RunConfig:
    """The found run's configuration, made larger, with its finalists as the only candidates.

    Baselines are the one that was hardest to beat, the noise baseline, and full attention to look
    up to; all get the same seeds, which no training in the store began from, so neither weights nor
    batches are those that the finalists were chosen by or verified with before. The last rung is
    the only one.
    """
    run = _run_of(store, wanted)
    rows = store.queries.leaderboard(run.id)
    named = [store.queries.architecture(which).architecture.id for which in wanted.which]
    finalists = named or [row.id for row in _best(rows)[: wanted.top]]
    if not finalists:
        raise StoreError(f"Run {run.id} has no measured candidate, so there is none to verify.")
    found = validate_config(run.config)
    table = found.model_dump(mode="json")
    table["seed"] = _last_seed(store, (one.id for one in store.runs())) + 1
    table["baselines"] = _rivals(rows, found)
    table["model"] |= _scaled(found, wanted.scale)
    table["ladder"] |= {
        "rung_tokens": found.ladder.rung_tokens[-1:],
        "promote_fraction": 1.0,
        "random_promote_fraction": 0.0,
        "noise_seeds": 1 + wanted.seeds,
        "baseline_seeds": 1 + wanted.seeds,
        "elite": len(finalists),
        "elite_seeds": wanted.seeds,
    }
    table["data"]["test_windows"] = found.data.val_windows
    tasks = dict.fromkeys([*SUITES[wanted.suite], *found.recall.tasks])  # which may be objectives
    table["recall"] |= {"enabled": True, "tasks": list(tasks)}
    table["proposer"] |= {"kind": "finalists", "finalists": finalists}
    table["budget"] = {"max_candidates": len(finalists)}
    lay_over(table, wanted.settings)
    config = validate_config(table)
    last_seed = _last_seed(store, {run.id, *store.queries.runs_of(finalists)})
    if config.seed <= last_seed:
        raise ConfigError(
            f"seed={config.seed} is one of those that the finalists were chosen by; a verification "
            f"needs others, from {last_seed + 1} on."
        )
    return config


def _last_seed(store: Store, run_ids: Iterable[str]) -> int:
    """The highest that any training of these runs began from."""
    return max((trial.seed for id_ in run_ids for trial in store.trials(id_)), default=-1)


def _run_of(store: Store, wanted: Finals) -> RunRow:
    if wanted.which:
        return store.run(store.queries.architecture(wanted.which[0]).architecture.run_id)
    if wanted.run is not None:
        return store.run(wanted.run)
    newest = store.latest_run()
    if newest is None:
        raise StoreError("This store holds no run yet; start one with launch-search.")
    return newest


def _best(rows: tuple[LeaderboardRow, ...]) -> list[LeaderboardRow]:
    """On each rung by the run's fitness, where it has one, and else as they are ranked."""
    scored = [row for row in rows if not row.is_baseline and row.val_bpb is not None]
    return sorted(
        scored, key=lambda row: (-(row.rung or 0), row.fitness is None, -(row.fitness or 0.0))
    )


def _rivals(rows: tuple[LeaderboardRow, ...], config: RunConfig) -> list[str]:
    scored = [row for row in rows if row.is_baseline and row.val_bpb is not None]
    hardest = [row.name for row in scored if not row.is_reference][:1]
    references = [row.name for row in scored if row.is_reference]
    return list(dict.fromkeys([config.ladder.noise_baseline, *hardest, *references]))


def _scaled(config: RunConfig, scale: int) -> dict[str, int]:
    """Wider by `scale`: weights grow with its square, embeddings with itself."""
    model = config.model
    embedding = model.vocab_size * model.d_model
    return {
        "d_model": scale * model.d_model,
        "n_heads": scale * model.n_heads,
        "param_budget": scale**2 * (model.param_budget - embedding) + scale * embedding,
    }
