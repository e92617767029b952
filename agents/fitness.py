"""One number for an architecture, where a run asks for one: higher is better, None never wins.

`pareto` (the default) has no such number. The others measure from the run's noise baseline on the
same rung. `asi-arch` and `asi-arch-paper` are the composite of ASI-Arch (arXiv 2507.18074) as its
code has it and as its paper does, with validation bits per byte for its last training loss; in
`asi-arch-above-chance` recall counts from chance on. Their third term, a language model's opinion,
is never part of a number here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from ..config import RecallConfig
from ..db import RECALL
from ..errors import ConfigError
from ..evaluator.tasks import task_named
from .objectives import direction_of

Metrics = Mapping[str, float | None]

PARETO = "pareto"
_WINDOW = 0.1  # of the baseline: where ASI-Arch's scores saturate and its filter rejects
_STEEPNESS = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """The noise baseline on one rung: means over its seeds, and the deviations where it has two.
    `chances`: of each task, by its metric, the share that guessing gets right."""

    means: dict[str, float]
    sds: dict[str, float]
    chances: Mapping[str, float] = field(default_factory=dict)


def chances_of(recall: RecallConfig) -> dict[str, float]:
    """By metric of each task that is run, at its sizes."""
    return {f"{RECALL}{name}": task_named(name, recall.sizes).chance_level for name in recall.tasks}


def measure_yardstick(seeds: Iterable[Metrics], chances: Mapping[str, float]) -> Yardstick:
    """From the baseline's measurements, one mapping for each seed."""
    values: dict[str, list[float]] = {}
    for metrics in seeds:
        for name, value in metrics.items():
            if value is not None and math.isfinite(value):
                values.setdefault(name, []).append(value)
    return Yardstick(
        means={name: fmean(found) for name, found in values.items()},
        sds={name: stdev(found) for name, found in values.items() if len(found) > 1},
        chances=chances,
    )


def check_fitness(name: str, objectives: Sequence[str]) -> None:
    """Raises ConfigError for a fitness that there is not, or that has no use for the objectives."""
    if name != PARETO and name not in FITNESS:
        raise ConfigError(f"There is no fitness {name!r}; choose from {PARETO}, {_names()}.")
    if name.startswith("asi-arch") and "val_bpb" not in objectives:
        raise ConfigError(f"Fitness {name!r} is made of the loss: add 'val_bpb' to objectives.")


def fitness_of(
    name: str, metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]
) -> float | None:
    """The number called `name`; None for `pareto`, and where something needed is not measured."""
    return None if name == PARETO else FITNESS[name](metrics, yardstick, objectives)


def noise_units(metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]) -> float | None:
    """Summed over objectives, how many deviations of the seed noise it is better than the baseline.

    An objective without seed noise (a size) has no such unit and is left out.
    """
    gains = []
    for objective in objectives:
        sd = yardstick.sds.get(objective)
        if not sd:
            continue
        value = _known(metrics.get(objective))
        if value is None:
            return None
        gain = value - yardstick.means[objective]
        gains.append((gain if direction_of(objective) == "max" else -gain) / sd)
    return math.fsum(gains) if gains else None


def asi_arch_as_coded(
    metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]
) -> float | None:
    """A sum of s(6 d), d the relative gain in windows of a tenth, clipped to [-1, 1].

    What lies a tenth or more from the baseline's loss on either side, or a tenth below its
    benchmark, is refused: theirs is the only guard against leaks, and it cannot tell a leak from a
    discovery. There a missing log scored 0.9975 and a missing benchmark 0.5; here both are None.
    """
    gains = _gains(metrics, yardstick, objectives)
    if gains is None or abs(gains[0]) >= _WINDOW or any(gain <= -_WINDOW for gain in gains[1:]):
        return None
    windows = (max(-1.0, min(1.0, gain / _WINDOW)) for gain in gains)
    return math.fsum(_sigmoid(_STEEPNESS * window) for window in windows)


def asi_arch_above_chance(
    metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]
) -> float | None:
    """As coded, with recall measured from chance (0) to all right (1), and windows of a tenth of
    that: a task's s(6 d) is weighed by how far above chance the architecture stands, from nothing
    there to all of it a window above.

    As coded, a recall of 3.4 % where guessing gets 3.1 % is a gain of a tenth, and scores 0.9975.
    """
    loss = asi_arch_as_coded(metrics, yardstick, ("val_bpb",))
    if loss is None:
        return None
    credits = [loss]
    for name in objectives:
        if not name.startswith(RECALL):
            continue
        value, base = _known(metrics.get(name)), yardstick.means.get(name)
        if value is None or base is None:
            return None
        chance = yardstick.chances[name]
        skill, base_skill = (max(0.0, (share - chance) / (1 - chance)) for share in (value, base))
        window = (skill - base_skill) / _WINDOW
        if window <= -1:
            return None
        credits.append(min(1.0, skill / _WINDOW) * _sigmoid(_STEEPNESS * min(1.0, window)))
    return math.fsum(credits)


def asi_arch_as_published(
    metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]
) -> float | None:
    """Equation 2: the mean of s(d), d the relative gain; as published neither scaled nor clipped.

    The paper discards what is more than a tenth below the baseline's loss, as a leak.
    """
    gains = _gains(metrics, yardstick, objectives)
    if gains is None or gains[0] > _WINDOW:
        return None
    return fmean(map(_sigmoid, gains))


FITNESS: dict[str, Callable[[Metrics, Yardstick, Sequence[str]], float | None]] = {
    "noise-units": noise_units,
    "asi-arch": asi_arch_as_coded,
    "asi-arch-above-chance": asi_arch_above_chance,
    "asi-arch-paper": asi_arch_as_published,
}


def _gains(metrics: Metrics, yardstick: Yardstick, objectives: Sequence[str]) -> list[float] | None:
    """Relative gains over the baseline: in loss, and in each task that is an objective."""
    gains = []
    tasks = [(name, 1.0) for name in objectives if name.startswith(RECALL)]
    for name, sign in (("val_bpb", -1.0), *tasks):
        value, base = _known(metrics.get(name)), yardstick.means.get(name)
        if value is None or not base:
            return None
        gains.append(sign * (value - base) / base)
    return gains


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _names() -> str:
    return ", ".join(FITNESS)
