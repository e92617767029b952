"""Live refresh: a small fragment polls, and the page runs again only when something changed.

Widgets keep their state over such a run, for it is one of the whole script with the same keys.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ..db import Store

POLL_S = 2.0


@st.fragment(run_every=POLL_S)
def watch_store(store: Store, token: str) -> None:
    """Runs the page again once the store's change token is no longer `token`."""
    if store.queries.change_token() != token:
        st.rerun()


@st.fragment(run_every=POLL_S)
def watch_for_file(file: Path) -> None:
    """Runs the page again once `file` exists."""
    if file.exists():
        st.rerun()
