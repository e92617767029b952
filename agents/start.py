"""Starts a search from what a command was told: pre-flight, store, workers, loop, and the end."""

from __future__ import annotations

import contextlib
import copy
import platform
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config import RunConfig, lay_over, load_config, validate_config
from ..db import LeaderboardRow, RunRow, StatisticRow, Store
from ..errors import ConfigError
from ..evaluator import open_workers
from .board import Board
from .cautions import cautions
from .findings import COMPARISON, RANK_CORRELATION, WINNERS_CURSE
from .fitness import chances_of
from .gallery_file import GALLERY_RUN
from .intake import Intake
from .preflight import cache_folder, check_before_start, default_profile, make_proposer
from .progress import Observer
from .proposers.baselines import baseline_proposals
from .restore import restore_board
from .search import Ending, Search
from .shard import record_opening
from .standings import noise_floors

_CHANGEABLE = ("budget", "sandbox", "workers")  # what a resumed run may be told anew


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """What the command line said, unresolved; `settings` are dotted keys and values."""

    profile: str | None = None
    config_file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    store: str | None = None
    resume: str | None = None
    ray_address: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a search ended and where it stands, ready to be printed."""

    run_id: str
    store: str
    state: str
    reason: str
    elapsed_s: float
    exit_code: int
    rows: tuple[LeaderboardRow, ...]
    noise_bpb: dict[int, float]  # by rung
    rank_correlations: tuple[StatisticRow, ...]  # of each rung with the next
    winners_curse: tuple[StatisticRow, ...]
    comparisons: tuple[StatisticRow, ...]  # of candidates with baselines
    cautions: tuple[str, ...]  # sentences to be read with the numbers
    funnel: dict[str, Any]


def resolve_config(request: SearchRequest) -> RunConfig:
    """The run's whole configuration; raises ConfigError for anything unknown or out of range."""
    profile = request.profile or default_profile()
    return load_config(profile, request.config_file, request.settings)


def run_search(request: SearchRequest, observer: Observer) -> Outcome:
    """Runs (or resumes) a search to its end; writes nothing before the pre-flight has passed."""
    if request.resume is None:
        config = resolve_config(request)
        device = check_before_start(config, ray_address=request.ray_address)
        with Store.open(request.store) as store:
            return start_run(store, config, device, observer, request.ray_address)
    with Store.open(request.store, create=False) as store:
        run = store.run(request.resume)
        config = _resumed_config(run, request)
        device = check_before_start(config, ray_address=request.ray_address)
        return _drive(store, run.id, config, device, observer, request.ray_address)


def start_run(
    store: Store,
    config: RunConfig,
    device: str,
    observer: Observer,
    ray_address: str | None = None,
) -> Outcome:
    """Runs a new search in an open store; `device` is what the pre-flight gave."""
    make_proposer(config, store)  # raises before a run is written down
    run_id = store.create_run(config.model_dump(mode="json"), versions(), config.seed)
    record_opening(store, run_id, config)
    for caution in cautions(store, run_id):
        observer.note(caution)
    return _drive(store, run_id, config, device, observer, ray_address)


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    packages = ("linearch", "torch", "triton", "numpy", "optuna", "ray")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _drive(
    store: Store,
    run_id: str,
    config: RunConfig,
    device: str,
    observer: Observer,
    ray_address: str | None,
) -> Outcome:
    epoch = store.claim_run(run_id)
    store.requeue_orphans(run_id, max_attempts=config.workers.max_attempts)
    board = Board(
        seed=config.seed,
        n_rungs=len(config.ladder.rung_tokens),
        objectives=config.objectives,
        fitness=config.fitness,
        noise_baseline=config.ladder.noise_baseline,
        chances=chances_of(config.recall),
    )
    restore_board(store, run_id, board)
    _admit_baselines(store, run_id, board, config)
    observer.note(f"run {run_id} in {store.location}: starting workers on {device}")
    ending = Ending(state="failed", reason="an error ended the driver", elapsed_s=0.0)
    workers = open_workers(
        config, device=device, folder=cache_folder(), address=ray_address, say=observer.note
    )
    try:
        with workers as pool:
            search = Search(
                config=config,
                store=store,
                run_id=run_id,
                epoch=epoch,
                board=board,
                pool=pool,
                proposer=make_proposer(config, store),
                observer=observer,
                gpu_share=1.0 / config.workers.trials_at_once if device == "cuda" else None,
            )
            with _interrupts(search):
                ending = search.run()
    finally:
        store.end_run(run_id, epoch, ending.state, ending.reason, ending.elapsed_s or None)
    return _outcome(store, run_id, config, ending)


def _outcome(store: Store, run_id: str, config: RunConfig, ending: Ending) -> Outcome:
    rows = store.queries.leaderboard(run_id)
    measured = any(row.val_bpb is not None for row in rows)
    code = {"finished": 0, "failed": 1, "interrupted": 130}[ending.state]
    if ending.budget_is_spent and not measured:
        code = 3
    funnel = store.queries.funnel(run_id)
    return Outcome(
        run_id=run_id,
        store=store.location,
        state=ending.state,
        reason=ending.reason,
        elapsed_s=ending.elapsed_s,
        exit_code=code,
        rows=rows,
        noise_bpb=noise_floors(store, run_id),
        rank_correlations=store.queries.statistics(run_id, RANK_CORRELATION),
        winners_curse=store.queries.statistics(run_id, WINNERS_CURSE),
        comparisons=store.queries.statistics(run_id, COMPARISON),
        cautions=cautions(store, run_id),
        funnel={name: getattr(funnel, name) for name in funnel.__dataclass_fields__},
    )


def _resumed_config(run: RunRow, request: SearchRequest) -> RunConfig:
    """The stored configuration with new budgets or workers; nothing else may change midway."""
    if run.name == GALLERY_RUN:
        raise ConfigError(
            f"Run {run.id} holds an imported gallery and is no search; start one without --resume."
        )
    if request.profile is not None or request.config_file is not None:
        raise ConfigError("A resumed run keeps its profile and configuration; leave both out.")
    for dotted in request.settings:
        section, _, key = dotted.partition(".")
        if section not in _CHANGEABLE or not key:
            raise ConfigError(
                f"A resumed run keeps its {dotted!r}: only settings under "
                f"{', '.join(_CHANGEABLE)} may change; start a new run for the rest."
            )
    table = copy.deepcopy(run.config)
    lay_over(table, request.settings)
    return validate_config(table)


def _admit_baselines(store: Store, run_id: str, board: Board, config: RunConfig) -> None:
    """Adds the baselines that the run does not hold yet: they take the candidates' path."""
    known = {candidate.name for candidate in board.baselines}
    intake = Intake(store, run_id, board, config.gates.max_source_bytes)
    for proposal, is_reference in baseline_proposals(config.baselines):
        if proposal.name not in known:
            intake.admit_proposal(proposal, is_reference=is_reference)


@contextlib.contextmanager
def _interrupts(search: Search) -> Iterator[None]:
    """Turns Ctrl-C and a polite kill into `search.interrupt()`."""
    previous = {
        number: signal.signal(number, lambda *_: search.interrupt())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
