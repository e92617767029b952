"""Beside every page: which run is shown, how it is doing, and the way to the other pages."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from ..db import RunRow, Store
from ..errors import StoreError
from .links import PAGES, page_link
from .watching import POLL_S
from .wording import CPU_NOTE, STATE_COLOURS, duration, plain, profile_of, run_label, store_option

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


def show_status(store: Store, run: RunRow, store_token: str) -> None:
    """The run's state; while it runs and auto-refresh is on, this looks for changes."""
    with st.sidebar:
        st.divider()
        if run.state == "running" and st.toggle("Auto-refresh", value=True, key="auto_refresh"):
            _watch_status(store, run.id, store_token)
        else:
            _draw_status(store, run)
        if profile_of(run) == "cpu":
            st.caption(CPU_NOTE)
        st.caption(f"Store `{store.location}`")


@st.fragment(run_every=POLL_S)
def _watch_status(store: Store, run_id: str, store_token: str) -> None:
    """Redraws the state alone, for heartbeats change no row; the page at any other change."""
    if store.queries.change_token() != store_token:
        st.rerun()
    _draw_status(store, store.run(run_id))


def _draw_status(store: Store, run: RunRow) -> None:
    st.badge(run.state, color=STATE_COLOURS.get(run.state, "gray"))
    took = duration(run.elapsed_s) if run.elapsed_s is not None else ""
    st.caption(" · ".join(filter(None, [f"`{run.id}`", took, plain(run.stop_reason or "")])))
    last = run.heartbeat_at or run.created_at
    silence_s = (datetime.now(UTC) - last).total_seconds()
    if run.state == "running" and silence_s > _SILENT_S:
        st.caption(
            f"Its driver has been silent for {duration(silence_s)}. If it is gone, this continues:"
        )
        command = f"launch-search --resume {run.id}{store_option(store.location)}"
        st.code(command, language="bash", wrap_lines=True)


def _go() -> None:
    """The picker's choice becomes the address; another run's architecture goes from it."""
    st.query_params.from_dict({"run": st.session_state["run"]})


def _run_of_address(store: Store, runs: tuple[RunRow, ...]) -> RunRow:
    known = {run.id: run for run in runs}
    given = st.query_params.get("run")
    if given in known:
        return known[given]
    if given is not None:
        st.warning(f"This store has no run {plain(given)}; here is its newest.")
    architecture_id = st.query_params.get("architecture")
    if architecture_id is not None:
        try:
            return known[store.architecture(architecture_id).run_id]
        except StoreError:
            return runs[0]  # the architecture's page says that it is unknown
    return runs[0]
