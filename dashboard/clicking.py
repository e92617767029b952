"""Tables and figures that answer a click with the id of what was clicked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from .wording import DASH

_ROW_PX = 35
_MOST_ROWS = 22  # more are scrolled to


def clickable_table(frame: pd.DataFrame, columns: Mapping[str, Any], key: str) -> str | None:
    """Draws these columns; returns the "id" of a row just ticked or whose name was just clicked.

    A selection comes as a position. It is looked up among the rows that the browser had, which
    are not those of this execution if a change came in between.
    """
    clicked: str | None = st.session_state.pop(f"{key}_clicked", None)
    st.session_state[f"{key}_ids"] = list(frame["id"])
    st.dataframe(
        frame[list(columns)],  # the browser is sent no more than it shows
        key=key,
        hide_index=True,
        height=_ROW_PX * (1 + min(len(frame), _MOST_ROWS)) + 3,
        placeholder=DASH,
        column_config=dict(columns),
        on_select=lambda: _resolve(key),
        selection_mode=["single-row", "single-cell"],
    )
    return clicked


def clickable_figure(figure: go.Figure, key: str) -> str | None:
    """Draws the figure; returns the customdata of the point just clicked.

    `uirevision` keeps zoom and pan while the data change.
    """
    figure.update_layout(uirevision=key, hoverlabel={"align": "left"})
    figure.update_traces(unselected={"marker": {"opacity": 1}}, selector={"mode": "markers"})
    event: Any = st.plotly_chart(figure, key=key, on_select="rerun", selection_mode="points")
    points = event.selection.points
    return points[0].get("customdata") if points else None


def _resolve(key: str) -> None:
    selection = st.session_state[key].selection
    ids = st.session_state[f"{key}_ids"]
    rows = list(selection.rows) + [row for row, name in selection.cells if name == "name"]
    if rows and rows[0] < len(ids):
        st.session_state[f"{key}_clicked"] = ids[rows[0]]
