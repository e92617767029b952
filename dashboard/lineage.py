"""Page: which architecture came from which, and where the best ones descend from."""

from __future__ import annotations

import streamlit as st

from linearch.dashboard.clicking import clickable_figure
from linearch.dashboard.figures import MOST_POINTS
from linearch.dashboard.lineage_figure import lineage_figure, pruned
from linearch.dashboard.links import open_architecture
from linearch.dashboard.reading import current_view

_N_BEST = 50


def render() -> None:
    view = current_view()
    lineage, rows = view.lineage(), view.leaderboard()
    st.title("Lineage", anchor=False)
    if not lineage.nodes:
        st.info("Nothing was proposed yet.")
        return
    scored = [row.id for row in rows if row.val_bpb is not None and not row.is_baseline]
    st.caption(
        "Point at an architecture for its motivation, click it for its page. The best candidate is "
        "named, and green is what it descends from."
    )
    n_nodes = len(lineage.nodes)
    if n_nodes > MOST_POINTS and not st.toggle(f"Draw all {n_nodes:,}", key="whole_lineage"):
        lineage = pruned(lineage, scored[:_N_BEST])
        st.caption(f"The {_N_BEST} best and all they descend from.")
    motivations = {row.id: row.motivation for row in rows}
    figure = lineage_figure(lineage, motivations, scored[0] if scored else None)
    opened = clickable_figure(figure, "lineage")
    if opened is not None:
        open_architecture(view, opened)


render()
