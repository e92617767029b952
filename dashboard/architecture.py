"""Page: one architecture with everything stored about it. Its code is rendered, never run."""

from __future__ import annotations

import streamlit as st

from linearch.dashboard.architecture_parts import (
    show_calls,
    show_gates,
    show_header,
    show_numbers,
    show_reasons,
    show_relatives,
    show_usage,
)
from linearch.dashboard.code_views import show_code, show_difference, show_genes
from linearch.dashboard.links import LEADERBOARD, architecture_link, page_link
from linearch.dashboard.reading import View, current_view
from linearch.dashboard.trial_views import show_curves, show_trials
from linearch.dashboard.wording import plain
from linearch.errors import StoreError

_N_OFFERED = 12


def render() -> None:
    view = current_view()
    key = st.query_params.get("architecture")
    if not key:
        _offer(view, "Choose an architecture.")
        return
    try:
        detail = view.architecture(key)
    except StoreError as error:
        st.warning(plain(str(error)))
        _offer(view, "This run's best are:")
        return
    row = detail.architecture
    quoted = next((found for found in view.leaderboard() if found.id == row.id), None)
    show_header(detail)
    show_numbers(view, quoted)
    reasons, usage = st.columns(2, gap="large")
    with reasons:
        show_reasons(detail)
        show_relatives(view, detail)
    with usage:
        show_usage(view, detail)
    code, difference, genes = st.tabs(["Code", "Changes", "Genes"])
    with code:
        show_code(row)
    with difference:
        show_difference(view, detail)
    with genes:
        show_genes(row)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Training", anchor=False)
        show_curves(detail.trials)
    with right:
        st.subheader("Gates", anchor=False)
        show_gates(detail)
    st.subheader("Trials", anchor=False)
    show_trials(detail.trials)
    show_calls(view, detail)


def _offer(view: View, invitation: str) -> None:
    st.title("Architecture")
    st.write(invitation)
    for row in view.leaderboard()[:_N_OFFERED]:
        architecture_link(view, row.id, plain(row.name))
    page_link(LEADERBOARD, view.run.id)


render()
