"""The run as the driver sees it: candidates and their trials, rebuilt from the store's rows.

Pure bookkeeping. What to do next is decided in `schedule.py`; the store stays the only truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..db import RECALL
from .fitness import PARETO, Yardstick, fitness_of, measure_yardstick
from .proposers.proposal import Evidence, Measured

SIZES = ("n_params", "flops_per_token", "state_bytes")  # what a judgement measures


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialKey:
    """What makes a trial of a candidate unique."""

    task: str  # "corpus" or a task's name
    rung: int
    seed: int
    learning_rate: float


@dataclass(kw_only=True, slots=True)
class Trial:
    """One (candidate, key) and how far it is: queued, running, done or failed."""

    id: str
    key: TrialKey
    tokens: int
    state: str = "queued"
    attempts: int = 0
    epoch: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    window_nats: tuple[float, ...] | None = None  # of the held-out windows, where they are known
    checkpoint_hash: str | None = None
    alarm: str | None = None  # why its score is too good to be believed unseen
    wall_s: float | None = None
    finished_at: datetime | None = None

    @property
    def val_bpb(self) -> float | None:
        return self.metrics.get("val_bpb") if self.state == "done" else None


@dataclass(kw_only=True, slots=True)
class Candidate:
    """One architecture of the run with what the gates and trials have said so far."""

    id: str
    name: str
    motivation: str
    source: str
    origin: str
    pattern: str
    is_reference: bool
    genome: dict[str, Any] | None
    parent_ids: tuple[str, ...]
    state: str = "proposed"  # and judging, rejected, sound, measured, failed, quarantined
    reason: str | None = None
    mlp_width: int | None = None
    sizes: dict[str, float | None] = field(default_factory=dict)  # of SIZES
    is_released: bool = False  # from quarantine, by an audit that passed
    attempts: int = 0  # judgements that the machinery, not the candidate, spoiled
    trials: dict[TrialKey, Trial] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        return self.origin == "baseline"

    @property
    def is_sound(self) -> bool:
        """Whether it passed the gates before training."""
        return self.is_believed or self.state == "quarantined"

    @property
    def is_believed(self) -> bool:
        """Whether it may train on, be a parent and be compared with others."""
        return self.state in {"sound", "measured", "failed"}

    def best(self, rung: int, seed: int) -> Trial | None:
        """The corpus trial of this rung and seed with the lowest val_bpb over learning rates."""
        scored = [
            trial
            for key, trial in self.trials.items()
            if (key.task, key.rung, key.seed) == ("corpus", rung, seed)
            and trial.val_bpb is not None
        ]
        return min(scored, key=lambda trial: trial.val_bpb or 0.0, default=None)

    def trained_on(self, rung: int) -> list[Trial]:
        """The trials on the corpus of this rung that gave a score, of any seed and rate."""
        return [
            trial
            for key, trial in self.trials.items()
            if (key.task, key.rung, trial.state) == ("corpus", rung, "done")
        ]

    def recall(self, seed: int) -> dict[str, float]:
        """By metric of each task that was probed, the best share over learning rates."""
        found: dict[str, float] = {}
        for key, trial in self.trials.items():
            metric = f"{RECALL}{key.task}"
            value = trial.metrics.get(metric)
            if key.seed == seed and trial.state == "done" and value is not None:
                found[metric] = max(value, found.get(metric, value))
        return found

    def top_rung(self, seed: int, n_rungs: int) -> int | None:
        """The highest rung with a score."""
        return next((r for r in reversed(range(n_rungs)) if self.best(r, seed)), None)


class Board:
    """All candidates of one run by id, in the order they were proposed."""

    def __init__(
        self,
        *,
        seed: int,
        n_rungs: int,
        objectives: tuple[str, ...],
        fitness: str = PARETO,
        noise_baseline: str | None = None,
        chances: Mapping[str, float] | None = None,
    ) -> None:
        """`chances`: of each task, by its metric, the share that guessing gets right."""
        self.seed, self.n_rungs, self.objectives = seed, n_rungs, objectives
        self.fitness, self.noise_baseline = fitness, noise_baseline
        self._chances = chances or {}
        self._candidates: dict[str, Candidate] = {}

    def __getitem__(self, architecture_id: str) -> Candidate:
        return self._candidates[architecture_id]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates.values())

    def add(self, candidate: Candidate) -> None:
        self._candidates[candidate.id] = candidate

    @property
    def baselines(self) -> list[Candidate]:
        return [candidate for candidate in self if candidate.is_baseline]

    @property
    def proposals(self) -> list[Candidate]:
        return [candidate for candidate in self if not candidate.is_baseline]

    def count_sound(self) -> int:
        """Proposed candidates that passed every gate."""
        return sum(candidate.is_sound for candidate in self.proposals)

    def trials(self, *states: str) -> list[tuple[Candidate, Trial]]:
        return [(c, t) for c in self for t in c.trials.values() if t.state in states]

    def evidence(self) -> Evidence:
        """What proposers may know: everything measured or rejected so far in this run."""
        return Evidence(
            candidates=tuple(self._measured(self.proposals)),
            baselines=tuple(self._measured(self.baselines)),
            objectives=self.objectives,
            fitness=self.fitness,
        )

    def _yardsticks(self) -> list[Yardstick]:
        """By rung, what the noise baseline's trainings measured, and its recall, of no rung."""
        known = [one for one in self.baselines if one.name == self.noise_baseline]
        recalled = [one.recall(self.seed) for one in known]
        return [
            measure_yardstick(
                [*recalled, *(trial.metrics for one in known for trial in one.trained_on(rung))],
                self._chances,
            )
            for rung in range(self.n_rungs)
        ]

    def _measured(self, candidates: Iterable[Candidate]) -> Iterator[Measured]:
        yardsticks = self._yardsticks()
        for candidate in candidates:
            # What was found out, or is too good to be believed, shows no numbers: it is no parent.
            is_believed = candidate.is_believed
            rung = candidate.top_rung(self.seed, self.n_rungs) if is_believed else None
            best = candidate.best(rung, self.seed) if rung is not None else None
            first = candidate.best(0, self.seed) if is_believed else None
            metrics = {
                **candidate.sizes,
                **(best.metrics if best else {}),
                **(candidate.recall(self.seed) if is_believed else {}),
            }
            yield Measured(
                id=candidate.id,
                name=candidate.name,
                motivation=candidate.motivation,
                source=candidate.source,
                origin=candidate.origin,
                state=candidate.state,
                reason=candidate.reason,
                genome=candidate.genome,
                rung=rung,
                metrics=metrics,
                rung_0_val_bpb=first.val_bpb if first else None,
                fitness=None
                if rung is None
                else fitness_of(self.fitness, metrics, yardsticks[rung], self.objectives),
                parent_ids=candidate.parent_ids,
            )
