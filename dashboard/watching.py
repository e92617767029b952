"""Live refresh: a small fragment polls, and the page runs again only when something changed.

Widgets keep their state over such a run, for it is one of the whole script with the same keys.
"""

from __future__ import annotations

import contextlib

import streamlit as st

from ..db import Store
from ..errors import StoreError
from .reading import open_store

POLL_S = 2.0


@st.fragment(run_every=POLL_S)
def watch_store(store: Store, token: str) -> None:
    """Runs the page again once the store's change token is no longer `token`."""
    if store.queries.change_token() != token:
        st.rerun()


@st.fragment(run_every=POLL_S)
def watch_for_store(location: str) -> None:
    """Runs the page again once there is a store that can be opened."""
    with contextlib.suppress(StoreError):
        open_store(location)
        st.rerun()
