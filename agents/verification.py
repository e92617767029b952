"""Trains a stored architecture again as a trial did and says whether its numbers came back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..config import RunConfig, validate_config
from ..db import RECALL, ArchitectureRow, Store, TrialDetail, TrialRow
from ..errors import LinearchError, StoreError
from ..evaluator import Judge, TrialSpec
from ..evaluator.results import TrialResult
from ..evaluator.statistics import resolution_bpb
from .preflight import cache_folder, resolve_device
from .standings import noise_floors, quoted_row

_EXACT = 1e-6
_SAME = ("torch", "python", "device", "threads", "machine", "corpus")  # what exactness hangs on
_EXACT_DEVICE = "cpu"  # on CUDA some operations add in an order of their own
_BITS = ("val_bpb", "test_bpb")
_CORPUS = "corpus"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated:
    """A stored number beside its repetition. `tolerance` is None where nothing allows one."""

    metric: str
    stored: float
    repeated: float | None
    tolerance: float | None

    @property
    def is_reproduced(self) -> bool:
        if self.repeated is None or self.tolerance is None:
            return False
        return abs(self.repeated - self.stored) <= self.tolerance


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """Every score of one trial, measured again."""

    architecture_id: str
    name: str
    trial_id: str
    numbers: tuple[Repeated, ...]
    same_surroundings: bool
    differences: dict[str, tuple[object, object]]  # stored and present surroundings
    reason: str | None = None

    @property
    def is_reproduced(self) -> bool:
        return all(number.is_reproduced for number in self.numbers)


def verify_architecture(
    which: str, *, store: str | None = None, note: Callable[[str], None] = lambda _: None
) -> Verification:
    """Repeats a trial in the sandbox; one on the corpus rung by rung.

    `which` is a trial's id or the start of one, or an architecture, of which the first quoted trial
    is meant. Exact (1e-6) on a CPU where versions, threads, machine and corpus are the stored ones;
    elsewhere bits per byte may differ by what the run's seed noise resolves, and a task's share of
    right answers by nothing. Raises StoreError if there is no finished trial.
    """
    with Store.open(store, create=False) as opened:
        row, found = _find(opened, which)
        trial = found.trial
        config = validate_config(opened.run(row.run_id).config)
        floor = noise_floors(opened, row.run_id).get(trial.rung)
    result = _repeat(row, trial, config, note)
    differences = {
        name: (then, now)
        for name in _SAME
        if (then := (trial.environment or {}).get(name)) != (now := result.environment.get(name))
    }
    is_exact = not differences and trial.device == _EXACT_DEVICE
    tolerance_bpb = None if floor is None else resolution_bpb(floor)
    return Verification(
        architecture_id=row.id,
        name=row.name,
        trial_id=trial.id,
        numbers=tuple(
            Repeated(
                metric=name,
                stored=stored,
                repeated=result.metrics.get(name),
                tolerance=_EXACT if is_exact else tolerance_bpb if name in _BITS else None,
            )
            for name, stored in _scores(found.metrics)
        ),
        same_surroundings=not differences,
        differences=differences,
        reason=result.reason,
    )


def _scores(metrics: Mapping[str, float | None]) -> Iterator[tuple[str, float]]:
    """What a training is for; its speed and memory are its machine's."""
    for name, value in sorted(metrics.items()):
        if value is not None and (name in _BITS or name.startswith(RECALL)):
            yield name, value


def _find(store: Store, which: str) -> tuple[ArchitectureRow, TrialDetail]:
    """What to repeat."""
    found = store.queries.find_trial(which)
    if found is None:
        row = store.queries.architecture(which).architecture
        quoted = quoted_row(store, row)
        found = store.queries.find_trial(quoted.trial_id) if quoted.trial_id else None
        if found is None:
            raise StoreError(f"{row.name} has no finished trial, so there is nothing to verify.")
    if not list(_scores(found.metrics)):
        raise StoreError(f"Trial {found.trial.id} has no score that could be repeated.")
    return store.architecture(found.trial.architecture_id), found


def _repeat(
    row: ArchitectureRow, trial: TrialRow, config: RunConfig, note: Callable[[str], None]
) -> TrialResult:
    """The trial from nothing: on the corpus every rung up to its own, each from the one before."""
    assert row.mlp_width is not None
    device = resolve_device(config.workers.device)
    judge = Judge(config, device=device, folder=cache_folder())
    checkpoint = None
    try:
        for rung, tokens in _steps(trial, config):
            note(f"training {row.name} on {tokens:,} tokens")
            spec = TrialSpec(
                source=row.source,
                pattern=row.pattern,
                mlp_width=row.mlp_width,
                task=trial.task,
                rung=rung,
                tokens=tokens,
                seed=trial.seed,
                learning_rate=trial.learning_rate,
                checkpoint=checkpoint,
                is_reference=row.is_reference,
            )
            result = judge.run_trial(spec)
            if result.status != "done":
                break
            checkpoint = result.checkpoint
    finally:
        judge.close()
    if result.status == "infra":
        raise LinearchError(f"The training could not run here: {result.reason}")
    return result


def _steps(trial: TrialRow, config: RunConfig) -> list[tuple[int, int]]:
    """Rungs and their tokens, one after another; a task is trained at once."""
    if trial.task != _CORPUS:
        return [(trial.rung, trial.tokens)]
    return list(enumerate(config.ladder.rung_tokens[: trial.rung + 1]))
