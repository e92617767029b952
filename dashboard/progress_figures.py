"""How a run is going, drawn: best so far, the funnel, what rejected candidates."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go

from ..db import BestPoint, Funnel, LeaderboardRow
from .figures import BAND, COLOURS, MOST_POINTS, Noise
from .wording import fixed

_HEIGHT_PX = 420
_MARGIN = {"t": 30, "b": 40, "r": 10}


def best_figure(
    points: Sequence[BestPoint], noise: Noise | None, best_baseline: tuple[str, float] | None
) -> go.Figure:
    """Each candidate in the order of its score (the lowest, if they are very many), and the best
    one once it was in."""
    figure = go.Figure()
    drawn = sorted(points, key=lambda point: point.val_bpb)[:MOST_POINTS]
    figure.add_scatter(
        x=[point.n for point in drawn],
        y=[point.val_bpb for point in drawn],
        mode="markers",
        name="candidate",
        marker={"color": COLOURS["candidate"], "size": 8, "opacity": 0.75},
        customdata=[point.architecture_id for point in drawn],
        hovertext=[f"<b>{html.escape(p.name)}</b><br>{fixed(p.val_bpb)}" for p in drawn],
        hoverinfo="text",
    )
    steps = [point for point in points if point.val_bpb == point.best_val_bpb] + [*points[-1:]]
    figure.add_scatter(
        x=[point.n for point in steps],
        y=[point.best_val_bpb for point in steps],
        mode="lines",
        name="best so far",
        line={"color": COLOURS["front"], "width": 2.5, "shape": "hv"},
        hoverinfo="skip",
    )
    if noise is not None:
        low, high = noise.band
        figure.add_hrect(y0=low, y1=high, fillcolor=BAND, line_width=0, layer="below")
        _add_line(figure, noise.baseline, noise.mean)
    if best_baseline is not None and (noise is None or best_baseline[0] != noise.baseline):
        _add_line(figure, *best_baseline)
    figure.update_xaxes(title="candidates measured")
    figure.update_yaxes(title="validation bits per byte")
    return _laid_out(figure)


def funnel_figure(funnel: Funnel) -> go.Figure:
    """From proposals to measurements, in candidates."""
    stages = {
        "proposed": funnel.proposed,
        "new and well-formed": funnel.proposed - funnel.duplicates - funnel.invalid,
        "passed all gates": funnel.sound,
        "measured": funnel.measured,
    }
    figure = go.Figure(
        go.Funnel(
            y=list(stages),
            x=list(stages.values()),
            textinfo="value+percent initial",
            marker={"color": COLOURS["candidate"]},
            connector={"fillcolor": "rgba(76, 110, 245, 0.2)", "line": {"width": 0}},
        )
    )
    return _laid_out(figure)


def rejections_figure(rejected: Mapping[str, int]) -> go.Figure:
    """Candidates by the check that refused them, most first."""
    ordered = sorted(rejected.items(), key=lambda item: item[1])
    figure = go.Figure(
        go.Bar(
            x=[count for _, count in ordered],
            y=[check for check, _ in ordered],
            orientation="h",
            marker={"color": COLOURS["rejected"]},
            text=[count for _, count in ordered],
        )
    )
    figure.update_xaxes(title="candidates", dtick=1 if max(rejected.values()) < 10 else None)
    figure.update_yaxes(automargin=True)
    return _laid_out(figure)


def best_baseline_at(rows: Iterable[LeaderboardRow], rung: int) -> tuple[str, float] | None:
    """Name and score of the lowest baseline at this rung; references do not compete."""
    scores = [
        (row.val_bpb_by_rung[rung], row.name)
        for row in rows
        if row.is_baseline and not row.is_reference and rung in row.val_bpb_by_rung
    ]
    if not scores:
        return None
    score, name = min(scores)
    return name, score


def _add_line(figure: go.Figure, name: str, score: float) -> None:
    figure.add_hline(
        y=score,
        line={"color": COLOURS["baseline"], "dash": "dot"},
        annotation={"text": name, "font": {"color": COLOURS["baseline"]}},
        annotation_position="top right",
    )


def _laid_out(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        height=_HEIGHT_PX,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin=_MARGIN,
    )
