"""Who came from whom, drawn: generations over the order of proposal."""

from __future__ import annotations

import html
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..db import Lineage, LineageEdge, LineageNode
from .figures import COLOURS, QUIET
from .wording import fixed

_DASHES = {"mutation": "solid", "crossover": "dash", "inspiration": "dot", "repair": "dashdot"}
_BEST_TO_WORST = [[0.0, COLOURS["front"]], [0.4, COLOURS["candidate"]], [1.0, "#868e96"]]
_DOUBTED = COLOURS["quarantined"]
_HOVER_CHARACTERS = 320
_LINE_CHARACTERS = 60
_FEW_GENERATIONS = 15  # up to which each has its tick


def generations(lineage: Lineage) -> dict[str, int]:
    """0 for architectures without parents, else one more than the latest parent's."""
    parents = _parents(lineage.edges)
    found: dict[str, int] = {}
    for node in lineage.nodes:  # in order of number, so parents come first
        known = [found[id_] for id_ in parents[node.id] if id_ in found]
        found[node.id] = 1 + max(known) if known else 0
    return found


def ancestry(lineage: Lineage, ids: Iterable[str]) -> set[str]:
    """These architectures with all they descend from."""
    parents = _parents(lineage.edges)
    found, waiting = set[str](), list(ids)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += parents[current]
    return found


def pruned(lineage: Lineage, ids: Iterable[str]) -> Lineage:
    """The part of it in which these architectures and all they descend from are."""
    kept = ancestry(lineage, ids)
    return Lineage(
        nodes=tuple(node for node in lineage.nodes if node.id in kept),
        edges=tuple(edge for edge in lineage.edges if edge.child_id in kept),
    )


def lineage_figure(
    lineage: Lineage, motivations: Mapping[str, str], best_id: str | None
) -> go.Figure:
    """Those scored at the highest rung are coloured by bits per byte, for rungs do not compare.

    The best one is named, and the edges by which it descends are bold.
    """
    heights = generations(lineage)
    places = {node.id: (node.number, heights[node.id]) for node in lineage.nodes}
    figure = go.Figure()
    for kind in sorted({edge.kind for edge in lineage.edges}):
        edges = [edge for edge in lineage.edges if edge.kind == kind]
        line = {"color": QUIET, "width": 1, "dash": _DASHES.get(kind, "solid")}
        _add_edges(figure, edges, places, line, kind)
    line_of_best = ancestry(lineage, [best_id] if best_id else [])
    bold = [edge for edge in lineage.edges if edge.child_id in line_of_best]
    _add_edges(figure, bold, places, {"color": COLOURS["front"], "width": 2.5}, "way to the best")
    for name, nodes, marker in _groups(lineage.nodes):
        _add_nodes(figure, nodes, places, motivations, marker, name)
    for node in lineage.nodes:
        if node.id == best_id:
            x, y = places[node.id]
            figure.add_annotation(x=x, y=y, text=html.escape(node.name), yshift=16, showarrow=False)
    figure.update_xaxes(title="order of proposal", showgrid=False, zeroline=False)
    few = max(heights.values(), default=0) <= _FEW_GENERATIONS
    figure.update_yaxes(title="generation", dtick=1 if few else None, zeroline=False)
    return figure.update_layout(
        height=640,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        margin={"t": 30, "b": 40, "r": 10},
    )


def _groups(nodes: Sequence[LineageNode]) -> list[tuple[str, list[LineageNode], dict[str, Any]]]:
    """Name, members and marker of each kind of node."""
    top = max((node.rung for node in nodes if node.rung is not None), default=None)
    rejected = [node for node in nodes if node.state == "rejected"]
    doubted = [node for node in nodes if node.state == "quarantined"]
    named = ("rejected", "quarantined")
    unscored = [node for node in nodes if node.rung is None and node.state not in named]
    lower = [node for node in nodes if node.rung is not None and node.rung != top]
    scored = [node for node in nodes if node.rung is not None and node.rung == top]
    scores = [node.val_bpb for node in scored if node.val_bpb is not None]
    coloured = {
        "size": 14,
        "symbol": ["diamond" if node.origin == "baseline" else "circle" for node in scored],
        "color": scores,
        "cmax": sorted(scores)[len(scores) // 2] if scores else None,  # the worse half is grey
        "cmin": min(scores, default=None),
        "colorscale": _BEST_TO_WORST,
        "colorbar": {"title": "bits/byte", "thickness": 12},
        "line": {"width": 1, "color": QUIET},
    }
    groups = [
        ("rejected", rejected, {"size": 9, "symbol": "x", "color": COLOURS["rejected"]}),
        ("in quarantine", doubted, {"size": 11, "symbol": "hexagon", "color": _DOUBTED}),
        ("no score", unscored, {"size": 11, "symbol": "circle-open", "color": QUIET}),
        ("scored at a lower rung", lower, {"size": 11, "color": QUIET}),
        (f"scored at rung {top} (◆ baseline)", scored, coloured),
    ]
    return [group for group in groups if group[1]]


def _add_edges(
    figure: go.Figure,
    edges: Iterable[LineageEdge],
    places: Mapping[str, tuple[int, int]],
    line: dict[str, Any],
    name: str,
) -> None:
    xs: list[int | None] = []
    ys: list[int | None] = []
    for edge in edges:
        if edge.parent_id in places:  # a parent may belong to another run
            (x0, y0), (x1, y1) = places[edge.parent_id], places[edge.child_id]
            xs += [x0, x1, None]
            ys += [y0, y1, None]
    if xs:
        figure.add_scatter(x=xs, y=ys, mode="lines", line=line, name=name, hoverinfo="skip")


def _add_nodes(
    figure: go.Figure,
    nodes: Sequence[LineageNode],
    places: Mapping[str, tuple[int, int]],
    motivations: Mapping[str, str],
    marker: dict[str, Any],
    name: str,
) -> None:
    figure.add_scatter(
        x=[places[node.id][0] for node in nodes],
        y=[places[node.id][1] for node in nodes],
        mode="markers",
        marker=marker,
        name=name,
        customdata=[node.id for node in nodes],
        hovertext=[_hover(node, motivations.get(node.id, "")) for node in nodes],
        hoverinfo="text",
    )


def _hover(node: LineageNode, motivation: str) -> str:
    said = textwrap.shorten(motivation, _HOVER_CHARACTERS, placeholder=" …")
    score = "" if node.val_bpb is None else f", {fixed(node.val_bpb)} bits/byte at rung {node.rung}"
    lines = textwrap.wrap(html.escape(said), _LINE_CHARACTERS)
    return "<br>".join([f"<b>{html.escape(node.name)}</b>", f"{node.state}{score}", *lines])


def _parents(edges: Iterable[LineageEdge]) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        parents[edge.child_id].append(edge.parent_id)
    return parents
