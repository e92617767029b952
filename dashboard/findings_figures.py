"""Findings drawn: the scores of one rung against those of the next."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from ..db import LeaderboardRow
from .figures import COLOURS, MOST_POINTS, kind_of
from .wording import fixed


def foretelling_figure(
    rows: Sequence[LeaderboardRow], rung: int, drawn: Collection[str]
) -> go.Figure:
    """Everything with a score on both rungs; those that climbed by lot are ringed."""
    figure = go.Figure()
    both = [row for row in rows if {rung, rung + 1} <= row.val_bpb_by_rung.keys()][:MOST_POINTS]
    for kind in ("candidate", "baseline", "reference"):
        chosen = [row for row in both if kind_of(row) == kind]
        figure.add_scatter(
            x=[row.val_bpb_by_rung[rung] for row in chosen],
            y=[row.val_bpb_by_rung[rung + 1] for row in chosen],
            mode="markers",
            name=kind,
            marker={"color": COLOURS[kind], "size": 9},
            customdata=[row.id for row in chosen],
            hovertext=[
                f"<b>{html.escape(row.name)}</b><br>{fixed(row.val_bpb_by_rung[rung])} → "
                f"{fixed(row.val_bpb_by_rung[rung + 1])}"
                for row in chosen
            ],
            hoverinfo="text",
        )
    ringed = [row for row in both if row.id in drawn]
    if ringed:
        figure.add_scatter(
            x=[row.val_bpb_by_rung[rung] for row in ringed],
            y=[row.val_bpb_by_rung[rung + 1] for row in ringed],
            mode="markers",
            name="by lot",
            marker={"symbol": "circle-open", "size": 17, "color": COLOURS["front"]},
            hoverinfo="skip",
        )
    figure.update_xaxes(title=f"bits per byte on rung {rung}")
    figure.update_yaxes(title=f"on rung {rung + 1}")
    return figure.update_layout(
        height=360,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 30, "b": 40, "r": 10},
    )
