"""The leaderboard as data frames, and how each column is shown.

The first frame is what the CSV holds; the table shows it with a few columns made for the eye.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from streamlit import column_config as column

from ..db import RECALL, LeaderboardRow, StatisticRow
from .wording import interval

Deviations = Mapping[tuple[str | None, int | None], float]  # by architecture and rung

ORIGIN_COLOURS = {
    "grammar": "#4c6ef5",
    "random": "#9775fa",
    "llm": "#15aabf",
    "file": "#37b24d",
    "baseline": "#f08c00",
    "reference": "#868e96",
}
SELDOM = ("test_bpb", "fitness")  # columns that most runs have nothing for
_NAME_PX = 250


def origin_of(row: LeaderboardRow) -> str:
    """Who wrote it; references are baselines outside the competition."""
    return "reference" if row.is_reference else row.origin


def deviations_of(deltas: Iterable[StatisticRow]) -> Deviations:
    """By how many deviations of the noise each row is better than the baseline."""
    return {
        (row.architecture_id, row.rung): row.detail["noise_deviations"]
        for row in deltas
        if row.detail and row.detail.get("noise_deviations") is not None
    }


def tasks_of(rows: Iterable[LeaderboardRow]) -> list[str]:
    """Those that any of the rows was measured on."""
    return sorted({task for row in rows for task in row.recall})


def scored_frame(
    rows: Iterable[LeaderboardRow], deviations: Deviations, ties: Counter[int | None]
) -> pd.DataFrame:
    """One line a row, in the given order; `ties` counts the members of each tie group."""
    return pd.DataFrame(
        {
            "rank": row.rank,
            "tie": "=" if row.tie is not None and ties[row.tie] > 1 else "",
            "name": row.name,
            "by": origin_of(row),
            "rung": row.rung,
            "tokens": row.tokens,
            "val_bpb": row.val_bpb,
            "val_bpb_low": row.val_bpb_low,
            "val_bpb_high": row.val_bpb_high,
            "test_bpb": row.test_bpb,
            "delta": row.delta,
            "delta_low": row.delta_low,
            "delta_high": row.delta_high,
            "noise_deviations": deviations.get((row.id, row.rung)),
            "fitness": row.fitness,
            "pareto_rank": row.pareto_rank,
            **{f"{RECALL}{task}": share for task, share in row.recall.items()},
            "n_params": row.n_params,
            "flops_per_token": row.flops_per_token,
            "state_bytes": row.state_bytes,
            "tokens_per_s": row.tokens_per_s,
            "decode_time_s": row.decode_time_s,
            "peak_memory_bytes": row.peak_memory_bytes,
            "family": row.family,
            "pattern": row.pattern,
            "n_seeds": row.n_seeds,
            "learning_rate": row.learning_rate,
            "trial": row.trial_id,
            "id": row.id,
            "motivation": row.motivation,
        }
        for row in rows
    )


def scored_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what the table shows in the place of bare numbers."""
    return frame.assign(
        by=[[origin] for origin in frame["by"]],
        **{name: frame[name].astype(float) * 100 for name in frame if name.startswith(RECALL)},
        score_interval=_half_widths(frame["val_bpb"], frame["val_bpb_high"]),
        interval=_intervals(frame["delta_low"], frame["delta_high"]),
        front=["●" if rank == 0 else "" for rank in frame["pareto_rank"]],
    )


def scored_columns(baseline: str, tasks: Sequence[str]) -> dict[str, Any]:
    """Headings, units and explanations in the order shown; `baseline` is what deltas refer to."""
    return {
        "rank": column.NumberColumn("#", width=48, pinned=True, help="Higher rungs come first."),
        "tie": column.TextColumn(
            "tie", width=40, pinned=True, help="= : within the noise of others of this rank."
        ),
        "name": column.TextColumn("name", pinned=True, width=_NAME_PX),
        "by": _origin_column(),
        "rung": column.NumberColumn("rung", help="The highest level of training with a score."),
        "val_bpb": column.NumberColumn(
            "val bits/byte", format="%.3f", help="On held-out text, mean over seeds; lower wins."
        ),
        "score_interval": column.TextColumn(
            "95 %", help="What the seed noise, pooled over all repeated, leaves of the mean."
        ),
        "test_bpb": column.NumberColumn(
            "test bits/byte", format="%.3f", help="On the shard opened for finalists alone."
        ),
        "delta": column.NumberColumn(
            "Δ bits/byte", format="%+.3f", help=f"Against {baseline}; below zero is better."
        ),
        "interval": column.TextColumn("Δ 95 %", help="What the seed noise leaves of Δ."),
        "noise_deviations": column.NumberColumn(
            "σ better",
            format="%+.1f",
            help=f"How many deviations of the seed noise it is better than {baseline}.",
        ),
        "fitness": column.NumberColumn(
            "fitness", format="%+.2f", help="By the run's fitness, where it is not pareto."
        ),
        "front": column.TextColumn("Pareto", help="● no row of its rung beats it in all."),
        **{
            f"{RECALL}{task}": column.NumberColumn(
                task, format="%.0f %%", help="Right answers on this task, at its best rate."
            )
            for task in tasks
        },
        "n_params": column.NumberColumn("parameters", format="localized"),
        "flops_per_token": column.NumberColumn(
            "FLOPs/token", format="compact", help="Of a training step, forward and backward."
        ),
        "state_bytes": column.NumberColumn("state", format="bytes", help="Of one sequence."),
        "tokens_per_s": column.NumberColumn("tokens/s", format="localized", help="In training."),
        "decode_time_s": column.NumberColumn(
            "s/decoded token", format="%.2e", help="One by one, a batch of one."
        ),
        "peak_memory_bytes": column.NumberColumn("peak memory", format="bytes"),
        "family": column.TextColumn("family", width="medium"),
        "pattern": column.TextColumn("layers", help="L: its mixer, A: window attention."),
        "n_seeds": column.NumberColumn("seeds", help="Trainings behind the number."),
        "trial": column.TextColumn("trial", help="The first of the trainings behind the number."),
        "id": column.TextColumn("id"),
    }


def unscored_frame(rows: Iterable[LeaderboardRow]) -> pd.DataFrame:
    """What has no score and why."""
    return pd.DataFrame(
        {
            "number": row.number,
            "name": row.name,
            "by": [origin_of(row)],
            "state": row.state,
            "gate": row.rejected_by,
            "reason": row.reason,
            "family": row.family,
            "id": row.id,
        }
        for row in rows
    )


def unscored_columns() -> dict[str, Any]:
    return {
        "number": column.NumberColumn("no.", width=48, pinned=True),
        "name": column.TextColumn("name", pinned=True, width=_NAME_PX),
        "by": _origin_column(),
        "state": column.TextColumn("state"),
        "gate": column.TextColumn("gate", help="The check that rejected it."),
        "reason": column.TextColumn("why", width="large"),
        "family": column.TextColumn("family"),
        "id": column.TextColumn("id"),
    }


def _half_widths(values: pd.Series, highs: pd.Series) -> list[str | None]:
    halves = (highs.astype(float) - values.astype(float)).tolist()
    return [None if math.isnan(half) else f"± {half:.3f}" for half in halves]


def _intervals(lows: pd.Series, highs: pd.Series) -> list[str | None]:
    sides = (side.astype(object).where(side.notna(), None) for side in (lows, highs))
    return [interval(low, high) for low, high in zip(*sides, strict=True)]


def _origin_column() -> Any:
    names: Sequence[str] = list(ORIGIN_COLOURS)
    colours = list(ORIGIN_COLOURS.values())
    return column.MultiselectColumn(
        "by", options=names, color=colours, help="Who wrote it; references do not compete."
    )
