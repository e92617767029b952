"""Trains a stored architecture again with a trial's seed and says whether its number came back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import RunConfig, validate_config
from ..db import ArchitectureRow, Store, TrialRow
from ..errors import LinearchError, StoreError
from ..evaluator import Judge, TrialSpec
from ..evaluator.results import TrialResult
from ..evaluator.statistics import resolution_bpb
from .preflight import cache_folder, resolve_device
from .standings import noise_floors, quoted_row

_EXACT_BPB = 1e-6
_SAME = ("torch", "python", "device", "threads", "machine", "corpus")  # what exactness hangs on
_EXACT_DEVICE = "cpu"  # on CUDA some operations add in an order of their own


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """A stored number beside its repetition. `tolerance_bpb` is None where nothing allows one."""

    architecture_id: str
    name: str
    trial_id: str
    stored_bpb: float
    repeated_bpb: float | None
    tolerance_bpb: float | None
    same_surroundings: bool
    differences: dict[str, tuple[object, object]]  # stored and present surroundings
    reason: str | None = None

    @property
    def is_reproduced(self) -> bool:
        if self.repeated_bpb is None or self.tolerance_bpb is None:
            return False
        return abs(self.repeated_bpb - self.stored_bpb) <= self.tolerance_bpb


def verify_architecture(
    which: str, *, store: str | None = None, note: Callable[[str], None] = lambda _: None
) -> Verification:
    """Repeats a trial on the corpus, rung by rung, in the sandbox.

    `which` is a trial's whole id, or an architecture, of which the first quoted trial is meant.
    Exact (1e-6) on a CPU where versions, threads, machine and corpus are the stored ones; elsewhere
    within what the run's seed noise resolves. Raises StoreError if it has no finished trial.
    """
    with Store.open(store, create=False) as opened:
        row, trial, stored_bpb = _find(opened, which)
        config = validate_config(opened.run(row.run_id).config)
        floor = noise_floors(opened, row.run_id).get(trial.rung)
    result = _repeat(row, trial, config, note)
    differences = {
        name: (then, now)
        for name in _SAME
        if (then := (trial.environment or {}).get(name)) != (now := result.environment.get(name))
    }
    must_be_exact = not differences and trial.device == _EXACT_DEVICE
    noise_tolerance = None if floor is None else resolution_bpb(floor)
    return Verification(
        architecture_id=row.id,
        name=row.name,
        trial_id=trial.id,
        stored_bpb=stored_bpb,
        repeated_bpb=result.metrics.get("val_bpb"),
        tolerance_bpb=_EXACT_BPB if must_be_exact else noise_tolerance,
        same_surroundings=not differences,
        differences=differences,
        reason=result.reason,
    )


def _find(store: Store, which: str) -> tuple[ArchitectureRow, TrialRow, float]:
    """What to repeat, and the number it gave."""
    trial = store.queries.trial_with_metrics(which)
    if trial is None:
        row = store.queries.architecture(which).architecture
        return row, *_quoted_trial(store, row)
    val_bpb = trial.metrics.get("val_bpb")
    if val_bpb is None:
        raise StoreError(f"Trial {which} has no score on the corpus that could be repeated.")
    return store.architecture(trial.trial.architecture_id), trial.trial, val_bpb


def _quoted_trial(store: Store, row: ArchitectureRow) -> tuple[TrialRow, float]:
    quoted = quoted_row(store, row)
    if quoted.trial_id is None or not quoted.val_bpb_values:
        raise StoreError(f"{row.name} has no finished trial, so there is nothing to verify.")
    return store.trial(quoted.trial_id), quoted.val_bpb_values[0]


def _repeat(
    row: ArchitectureRow, trial: TrialRow, config: RunConfig, note: Callable[[str], None]
) -> TrialResult:
    """The trial from nothing: every rung up to its own, each from the checkpoint before."""
    assert row.mlp_width is not None
    device = resolve_device(config.workers.device)
    judge = Judge(config, device=device, folder=cache_folder())
    checkpoint = None
    try:
        for rung in range(trial.rung + 1):
            note(f"training {row.name} on {config.ladder.rung_tokens[rung]:,} tokens")
            spec = TrialSpec(
                source=row.source,
                pattern=row.pattern,
                mlp_width=row.mlp_width,
                task=trial.task,
                rung=rung,
                tokens=config.ladder.rung_tokens[rung],
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
