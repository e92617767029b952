"""Beside every page: which run is shown, how it is doing, and the way to the other pages."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from ..db import RunRow, Store
from ..errors import StoreError
from .links import PAGES, page_link
from .reading import View
from .watching import watch_store
from .wording import CPU_NOTE, STATE_COLOURS, duration, profile_of, run_label

_SILENT_S = 60.0  # a driver that lives gives a sign every few seconds


def choose_run(store: Store, runs: tuple[RunRow, ...]) -> RunRow:
    """The run of the address, or the newest; the picker changes the address."""
    wanted = _run_of_address(store, runs)
    st.session_state["run"] = wanted.id
    labels = {run.id: run_label(run) for run in runs}
    with st.sidebar:
        st.markdown("## linearch")
        st.selectbox("Run", list(labels), format_func=labels.__getitem__, key="run", on_change=_go)
        for script in PAGES:
            page_link(script, wanted.id)
    return wanted


def show_status(view: View, store_token: str) -> None:
    """The run's state; polls while it is running and auto-refresh is on."""
    run = view.run
    with st.sidebar:
        st.divider()
        st.badge(run.state, color=STATE_COLOURS.get(run.state, "gray"))
        st.caption(_status(run))
        if run.state == "running":
            if _is_silent(run):
                st.caption(f"Its driver is silent. `launch-search --resume {run.id}` continues it.")
            if st.toggle("Auto-refresh", value=True, key="auto_refresh"):
                watch_store(view.store, store_token)
        if profile_of(run) == "cpu":
            st.caption(CPU_NOTE)
        st.caption(f"Store `{view.store.location}`")


def _go() -> None:
    """The picker's choice becomes the address; another run's architecture goes from it."""
    st.query_params.from_dict({"run": st.session_state["run"]})


def _run_of_address(store: Store, runs: tuple[RunRow, ...]) -> RunRow:
    known = {run.id: run for run in runs}
    given = st.query_params.get("run")
    if given in known:
        return known[given]
    if given is not None:
        st.warning(f"This store has no run {given}; here is its newest.")
    architecture_id = st.query_params.get("architecture")
    if architecture_id is not None:
        try:
            return known[store.architecture(architecture_id).run_id]
        except StoreError:
            return runs[0]  # the architecture's page says that it is unknown
    return runs[0]


def _status(run: RunRow) -> str:
    parts = [duration(run.elapsed_s) if run.elapsed_s is not None else "", run.stop_reason or ""]
    return " · ".join([f"`{run.id}`", *filter(None, parts)])


def _is_silent(run: RunRow) -> bool:
    last = run.heartbeat_at or run.created_at
    return (datetime.now(UTC) - last).total_seconds() > _SILENT_S
