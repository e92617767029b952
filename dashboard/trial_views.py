"""An architecture's trials: their training curves and everything measured in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit import column_config as column

from ..db import CURVE, TrialDetail
from .wording import DASH, plain

_FORMATS = {  # metric: heading, format
    "val_bpb": ("val bits/byte", "%.4f"),
    "tokens_per_s": ("tokens/s", "localized"),
    "step_time_s": ("s/step", "%.4f"),
    "decode_time_s": ("s/decoded token", "%.2e"),
    "peak_memory_bytes": ("peak memory", "bytes"),
    "train_wall_s": ("training s", "%.1f"),
    "train_cpu_s": ("training processor s", "%.1f"),
    "prepare_wall_s": ("s before training", "%.1f"),
    "score_wall_s": ("scoring s", "%.1f"),
    "test_bpb": ("test bits/byte", "%.4f"),
    "prefix_shift_nats": ("prefix shift nats", "%.1e"),
    "train_cost_ratio": ("training / scoring cost", "%.1f"),
}


def show_curves(trials: Sequence[TrialDetail]) -> None:
    """Training loss over tokens, in bits or nats, of one task: losses of two do not compare."""
    drawn = [item for item in trials if item.curves.get(CURVE)]
    if not drawn:
        st.info("No training curve is stored yet.")
        return
    tasks = sorted({item.trial.task for item in drawn})
    with st.container(horizontal=True):
        unit = _choice("Unit", ["bits", "nats"], "curve_unit")
        task = _choice("Task", tasks, "curve_task") if len(tasks) > 1 else tasks[0]
    chosen = [item for item in drawn if item.trial.task == task]
    st.plotly_chart(curve_figure(chosen, unit), key=f"curves_{task}")
    st.caption("As the training process reported it: shown, never ranked.")


def _choice(label: str, options: Sequence[str], key: str) -> str:
    """One of a few, side by side; the first until another is taken."""
    chosen = st.segmented_control(
        label, options, default=options[0], key=key, label_visibility="collapsed"
    )
    return chosen or options[0]


def curve_figure(trials: Sequence[TrialDetail], unit: str) -> go.Figure:
    """One line a trial; nats are stored."""
    figure = go.Figure()
    per_nat = 1 / math.log(2) if unit == "bits" else 1.0
    for item in trials:
        points = [(step, loss) for step, loss in item.curves.get(CURVE, ()) if loss is not None]
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[loss * per_nat for _, loss in points],
            mode="lines",
            name=trial_label(item),
            hovertemplate=f"%{{x:,}} tokens, %{{y:.3f}} {unit}",
        )
    figure.update_xaxes(title="tokens seen")
    figure.update_yaxes(title=f"training loss ({unit} a token)")
    return figure.update_layout(
        height=380,
        uirevision="curves",
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 30, "b": 40, "r": 10},
    )


def trial_label(item: TrialDetail) -> str:
    trial = item.trial
    return f"rung {trial.rung}, seed {trial.seed}, rate {trial.learning_rate:g}"


def show_trials(trials: Sequence[TrialDetail]) -> None:
    """Every trial with its id and its measurements; one column for each metric that occurs."""
    if not trials:
        st.info("It was never trained.")
        return
    st.dataframe(
        trials_frame(trials),
        key="trials",
        hide_index=True,
        placeholder=DASH,
        column_config=_trial_columns(trials),
    )
    for trial in (item.trial for item in trials):
        if trial.reason:
            st.caption(f"`{trial.id}` {trial.status or trial.state}: {plain(trial.reason)}")
        if trial.alarm:
            st.caption(f"`{trial.id}` alarm: {plain(trial.alarm)}")
    with st.expander("Where they ran", key="environments"):
        st.json({item.trial.id: item.trial.environment for item in trials}, expanded=2)


def trials_frame(trials: Sequence[TrialDetail]) -> pd.DataFrame:
    metrics = _metrics(trials)
    return pd.DataFrame(
        {
            "trial": item.trial.id,
            "purpose": item.trial.purpose,
            "task": item.trial.task,
            "rung": item.trial.rung,
            "tokens": item.trial.tokens,
            "seed": item.trial.seed,
            "learning_rate": item.trial.learning_rate,
            "state": item.trial.status or item.trial.state,
            **{name: item.metrics.get(name) for name in metrics},
            "wall_s": item.trial.wall_s,
            "device": item.trial.device,
            "sandbox": item.trial.sandbox,
            "attempts": item.trial.attempts,
        }
        for item in trials
    )


def _metrics(trials: Sequence[TrialDetail]) -> list[str]:
    """Those that occur: the well-known in their order, then the others."""
    found = {name for item in trials for name in item.metrics}
    return [name for name in _FORMATS if name in found] + sorted(found - set(_FORMATS))


def _trial_columns(trials: Sequence[TrialDetail]) -> dict[str, Any]:
    known = {
        name: column.NumberColumn(heading, format=style)
        for name, (heading, style) in _FORMATS.items()
        if name in _metrics(trials)
    }
    return known | {
        "trial": column.TextColumn("trial", pinned=True),
        "purpose": column.TextColumn("for", help="promoted: by its score; random: by lot."),
        "tokens": column.NumberColumn("tokens", format="localized"),
        "learning_rate": column.NumberColumn("rate", format="%g"),
        "wall_s": column.NumberColumn("took s", format="%.1f"),
    }
