"""Page: how far the run has come, what it spent, and what happened last."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from streamlit import column_config as column

from linearch.dashboard.clicking import clickable_figure
from linearch.dashboard.figures import noise_of
from linearch.dashboard.links import open_architecture
from linearch.dashboard.progress_figures import (
    best_baseline_at,
    best_figure,
    funnel_figure,
    rejections_figure,
)
from linearch.dashboard.reading import View, current_view
from linearch.dashboard.wording import fixed, local_time
from linearch.db import EventRow

_N_EVENTS = 50


def render() -> None:
    view = current_view()
    st.title("Progress", anchor=False)
    _show_counts(view)
    _show_best(view)
    funnel = view.funnel()
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("From proposal to measurement", anchor=False)
        st.plotly_chart(funnel_figure(funnel), key="funnel")
    with right:
        st.subheader("Rejected by", anchor=False)
        if funnel.rejected:
            st.plotly_chart(rejections_figure(funnel.rejected), key="rejections")
        else:
            st.info("No candidate was rejected.")
    _show_budget(view)
    _show_events(view.events(_N_EVENTS))


def _show_counts(view: View) -> None:
    funnel = view.funnel()
    numbers: dict[str, int | str] = {
        "proposed": funnel.proposed,
        "duplicates": funnel.duplicates,
        "invalid": funnel.invalid,
        "in gates": funnel.in_gates,
        "rejected": sum(funnel.rejected.values()),
        "in training": funnel.training,
        "measured": funnel.measured,
        "failed": funnel.failed,
        "quarantined": funnel.quarantined,
        "baselines measured": f"{funnel.baselines_measured} of {funnel.baselines}",
    }
    with st.container(horizontal=True, border=True, gap="medium"):
        for label, value in numbers.items():
            st.metric(label, value, width="content")


def _show_best(view: View) -> None:
    st.subheader("Best so far", anchor=False)
    rows = view.leaderboard()
    rungs = sorted({rung for row in rows for rung in row.val_bpb_by_rung}, reverse=True)
    if not rungs:
        st.info("No score is in yet.")
        return
    rung = st.segmented_control(
        "Rung",
        rungs,
        default=rungs[0],
        key="best_rung",
        format_func=lambda n: f"rung {n}",
        label_visibility="collapsed",
    )
    rung = rungs[0] if rung is None else rung
    noise = noise_of(view.statistics("noise_floor"), view.noise_baseline).get(rung)
    figure = best_figure(view.best_so_far(rung), noise, best_baseline_at(rows, rung))
    opened = clickable_figure(figure, f"best_{rung}")
    if opened is not None:
        open_architecture(view, opened)
    if noise is not None:
        st.caption(
            f"Inside the band (± {fixed(noise.resolution)}) a single run cannot be told from "
            f"{view.noise_baseline}."
        )


def _show_budget(view: View) -> None:
    """What was used, beside the limit where there is one."""
    spent, limits = view.spent(), view.run.config.get("budget", {})
    hours = spent.gpu_seconds / 3600
    minutes = None if view.run.elapsed_s is None else view.run.elapsed_s / 60
    lines = [
        ("candidates that passed the gates", view.funnel().sound, limits.get("max_candidates")),
        ("minutes", minutes, limits.get("max_minutes")),
        ("GPU-hours", hours, limits.get("max_gpu_hours")),
        ("US dollars", spent.usd, limits.get("max_usd")),
    ]
    st.subheader("Budget", anchor=False)
    frame = pd.DataFrame(
        {
            "budget": name,
            "spent": value,
            "limit": limit,
            "share": value / limit if value is not None and limit else None,
        }
        for name, value, limit in lines
    )
    st.dataframe(
        frame,
        key="budget",
        hide_index=True,
        placeholder="none",
        column_config={
            "spent": column.NumberColumn("spent", format="%.4g"),
            "limit": column.NumberColumn("limit", format="%.4g"),
            "share": column.ProgressColumn("share", format="percent", min_value=0, max_value=1),
        },
    )


def _show_events(events: tuple[EventRow, ...]) -> None:
    st.subheader("Latest events", anchor=False)
    if not events:
        st.info("Nothing worth a note has happened.")
        return
    lines = [
        {
            "time": local_time(event.time),
            "event": event.kind,
            "what": ", ".join(f"{name}: {value}" for name, value in event.data.items()),
        }
        for event in reversed(events)
    ]
    st.dataframe(
        pd.DataFrame(lines),
        key="events",
        hide_index=True,
        column_config={
            "time": column.DatetimeColumn("time", format="YYYY-MM-DD HH:mm:ss", width="small"),
            "what": column.TextColumn("what", width="large"),
        },
    )


render()
