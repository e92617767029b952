"""Page: all runs of the store."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from streamlit import column_config as column

from linearch.dashboard.clicking import clickable_table
from linearch.dashboard.links import open_run
from linearch.dashboard.reading import View, current_view, runs_of
from linearch.dashboard.wording import duration, local_time, profile_of, proposer_of
from linearch.db import RunRow

_MOST_RUNS = 200


def render() -> None:
    view = current_view()
    runs = runs_of(view.store, view.store.queries.change_token())
    st.title("Runs", anchor=False)
    st.caption(f"{len(runs)} in this store, newest first. Tick one, or click it, to look at it.")
    opened = clickable_table(
        pd.DataFrame(_line(view, run) for run in runs[:_MOST_RUNS]), _columns(), "runs"
    )
    if opened is not None:
        open_run(opened)


def _line(view: View, run: RunRow) -> dict[str, object]:
    shown = View(store=view.store, run=run, token=str(run.revision))
    funnel = shown.funnel()
    return {
        "name": run.name or run.id,
        "started": local_time(run.created_at),
        "profile": profile_of(run),
        "proposer": proposer_of(run),
        "seed": run.seed,
        "state": run.state,
        "why": run.stop_reason,
        "took": duration(run.elapsed_s),
        "proposed": funnel.proposed,
        "measured": funnel.measured,
        "id": run.id,
    }


def _columns() -> dict[str, Any]:
    return {
        "name": column.TextColumn("run", pinned=True),
        "started": column.DatetimeColumn("started", format="YYYY-MM-DD HH:mm"),
        "profile": column.TextColumn("profile"),
        "proposer": column.TextColumn("proposer"),
        "seed": column.NumberColumn("seed"),
        "state": column.TextColumn("state"),
        "why": column.TextColumn("why it ended", width="medium"),
        "took": column.TextColumn("took"),
        "proposed": column.NumberColumn("proposed", help="Candidates, without baselines."),
        "measured": column.NumberColumn("measured"),
    }


render()
