"""The leaderboard drawn: scores with their intervals over the noise, and scores against costs."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from ..db import RECALL, LeaderboardRow
from .figures import BAND, COLOURS, MOST_POINTS, Noise, kind_of
from .wording import fixed, interval, signed

MOST_BARS = 40
COSTS = {  # objective: axis title
    "state_bytes": "state (bytes a sequence)",
    "tokens_per_s": "training speed (tokens/s)",
    "n_params": "parameters",
    "flops_per_token": "training (operations a token)",
    "decode_time_s": "decoding (s a token)",
    "peak_memory_bytes": "peak memory (bytes)",
}


def cost_title(cost: str) -> str:
    """An axis's, of one of COSTS or of a task."""
    return COSTS.get(cost) or f"{cost.removeprefix(RECALL)} (share of right answers)"


def score_figure(rows: Sequence[LeaderboardRow], noise: Noise | None) -> go.Figure:
    """One line an architecture, best on top; bars are the interval of its difference."""
    figure = go.Figure()
    places = {row.id: place for place, row in enumerate(rows)}
    for kind in ("candidate", "baseline", "reference"):
        chosen = [row for row in rows if kind_of(row) == kind]
        figure.add_scatter(
            x=[row.val_bpb for row in chosen],
            y=[places[row.id] for row in chosen],
            error_x=_bars(chosen),
            mode="markers",
            name=kind,
            marker={"color": COLOURS[kind], "size": 9},
            customdata=[row.id for row in chosen],
            hovertext=[_hover(row) for row in chosen],
            hoverinfo="text",
        )
    if noise is not None:
        low, high = noise.band
        figure.add_vrect(x0=low, x1=high, fillcolor=BAND, line_width=0, layer="below")
        figure.add_vline(x=noise.mean, line={"color": COLOURS["baseline"], "dash": "dot"})
    figure.update_xaxes(title="validation bits per byte (lower is better)")
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[html.escape(row.name) for row in rows],
        autorange="reversed",
        automargin=True,
        showgrid=False,
    )
    return figure.update_layout(
        showlegend=True,
        height=140 + 22 * max(len(rows), 6),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 30, "b": 40, "r": 10},
    )


def pareto_figure(
    rows: Sequence[LeaderboardRow], cost: str, objectives: Sequence[str]
) -> go.Figure:
    """Scores against one cost; rows of Pareto rank 0 are ringed, and joined where these two
    objectives are all that the rank is over. Of very many rows those near the front are drawn."""
    figure = go.Figure()
    drawn = sorted(
        (row for row in rows if row.measured(cost) is not None),
        key=lambda row: math.inf if row.pareto_rank is None else row.pareto_rank,
    )[:MOST_POINTS]
    for kind in ("candidate", "baseline", "reference"):
        chosen = [row for row in drawn if kind_of(row) == kind]
        figure.add_scatter(
            x=[row.measured(cost) for row in chosen],
            y=[row.val_bpb for row in chosen],
            mode="markers",
            name=kind,
            marker={"color": COLOURS[kind], "size": 9},
            customdata=[row.id for row in chosen],
            hovertext=[_hover(row) for row in chosen],
            hoverinfo="text",
        )
    front = sorted(
        (row for row in drawn if row.pareto_rank == 0), key=lambda row: row.val_bpb or 0.0
    )
    figure.add_scatter(
        x=[row.measured(cost) for row in front],
        y=[row.val_bpb for row in front],
        mode="markers+lines" if set(objectives) == {"val_bpb", cost} else "markers",
        name="Pareto front",
        marker={"symbol": "circle-open", "size": 17, "color": COLOURS["front"]},
        line={"color": COLOURS["front"], "width": 1.5, "shape": "vh"},
        hoverinfo="skip",
    )
    figure.update_xaxes(title=cost_title(cost))
    figure.update_yaxes(title="validation bits per byte")
    return figure.update_layout(
        height=460,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 30, "b": 40, "r": 10},
    )


def _bars(rows: Sequence[LeaderboardRow]) -> dict[str, object]:
    """The stored interval of the difference, laid around the score."""
    known = [
        (row.delta_high - row.delta, row.delta - row.delta_low)
        if row.delta is not None and row.delta_low is not None and row.delta_high is not None
        else (0.0, 0.0)
        for row in rows
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [above for above, _ in known],
        "arrayminus": [below for _, below in known],
        "thickness": 1.2,
        "width": 0,
    }


def _hover(row: LeaderboardRow) -> str:
    lines = [
        f"<b>{html.escape(row.name)}</b>",
        f"{fixed(row.val_bpb)} bits/byte, Δ {signed(row.delta)}",
        interval(row.delta_low, row.delta_high) or "",
        html.escape(row.family or ""),
    ]
    return "<br>".join(filter(None, lines))
