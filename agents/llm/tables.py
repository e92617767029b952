"""Measurements as Markdown tables with units, and differences that say which way is better.

A missing number is a dash. Differences are only given between scores of the same rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...db import RECALL
from ..objectives import direction_of
from ..proposers.proposal import Measured
from .quoting import inline

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is written; which way is better stands in objectives.py."""

    unit: str
    decimals: int = 0


METRICS = {
    "val_bpb": Metric("bits per byte on held-out text", 4),
    "state_bytes": Metric("bytes of state a sequence"),
    "tokens_per_s": Metric("training tokens a second"),
    "step_time_s": Metric("seconds a step", 4),
    "decode_time_s": Metric("seconds to decode a token", 5),
    "peak_memory_bytes": Metric("bytes"),
    "n_params": Metric("parameters"),
    "flops_per_token": Metric("operations a token in training"),
    "train_wall_s": Metric("seconds of training", 1),
}
_RECALL = Metric("share of right answers", 3)
_UNKNOWN = Metric("", 4)
# Stored for the judge's sake; to a proposer they are noise.
_CHECKS = frozenset(
    {
        "prefix_shift_nats",
        "train_cost_ratio",
        "train_cpu_s",
        "prepare_wall_s",
        "score_wall_s",
    }
)


def format_metric(name: str, value: float | None) -> str:
    """A number with its metric's decimals, without a unit."""
    return MISSING if value is None else f"{value:.{_metric(name).decimals}f}"


def _metric(name: str) -> Metric:
    return METRICS.get(name, _RECALL if name.startswith(RECALL) else _UNKNOWN)


def describe_metric(name: str) -> str:
    """A metric's name with its unit and the direction that counts as better."""
    metric = _metric(name)
    better = {"min": "lower is better", "max": "higher is better"}.get(direction_of(name) or "")
    notes = ", ".join(note for note in (metric.unit, better) if note)
    return f"{name} ({notes})" if notes else name


def metric_names(measured: Iterable[Measured]) -> list[str]:
    """Every metric that any of these has, known ones first and in one order; checks left out."""
    present = {name for m in measured for name, value in m.metrics.items() if value is not None}
    present -= _CHECKS
    return [*(name for name in METRICS if name in present), *sorted(present - METRICS.keys())]


def comparison_table(subject: Measured, others: Sequence[tuple[str, Measured]]) -> str:
    """A row for each of the subject's metrics: its value, its difference to each of `others`."""
    names = [name for name in metric_names([subject]) if subject.metrics.get(name) is not None]
    if not names:
        return "It has not been measured yet."
    heads = [f"against {label} {inline(other.name)}" for label, other in others]
    rows = [
        [
            describe_metric(name),
            format_metric(name, subject.metrics[name]),
            *(_difference(name, subject, other) for _, other in others),
        ]
        for name in names
    ]
    return "\n".join(
        [*_table_head(["measurement", f"rung {subject.rung}", *heads]), *map(_row, rows)]
    )


def summary_head(names: Sequence[str], *more: str) -> list[str]:
    """The head of a table whose rows are `summary_row`."""
    return _table_head(["name", "rung", *names, "val_bpb after rung 0", *more])


def summary_row(measured: Measured, names: Sequence[str], *more: str) -> str:
    """An architecture as a row: name, rung, metrics, bits per byte after rung 0, and `more`."""
    rung = MISSING if measured.rung is None else str(measured.rung)
    values = [format_metric(name, measured.metrics.get(name)) for name in names]
    first = format_metric("val_bpb", measured.rung_0_val_bpb)
    return _row([inline(measured.name), rung, *values, first, *more])


def _difference(name: str, subject: Measured, other: Measured) -> str:
    mine, theirs = subject.metrics.get(name), other.metrics.get(name)
    if name == "val_bpb" and subject.rung != other.rung:
        mine, theirs = subject.rung_0_val_bpb, other.rung_0_val_bpb
        suffix = " after rung 0"
    else:
        suffix = ""
    if mine is None or theirs is None:
        return MISSING
    gap = mine - theirs
    return f"{gap:+.{METRICS.get(name, _UNKNOWN).decimals}f}{_verdict(name, gap)}{suffix}"


def _verdict(name: str, gap: float) -> str:
    direction = direction_of(name)
    if direction is None or gap == 0:
        return ""
    return " better" if (gap < 0) == (direction == "min") else " worse"


def _table_head(columns: Sequence[str]) -> list[str]:
    return [_row(columns), _row(["---"] * len(columns))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
