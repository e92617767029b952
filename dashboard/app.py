"""The dashboard's entry script: finds the store, picks the run, runs the page.

Streamlit executes it, and then the page's script, anew at every interaction and every change.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from linearch.dashboard.filters import remember_filters
from linearch.dashboard.links import PAGES
from linearch.dashboard.reading import View, open_store, runs_of, show
from linearch.dashboard.sidebar import choose_run, show_status
from linearch.dashboard.watching import watch_for_store, watch_store
from linearch.dashboard.wording import plain, store_option
from linearch.db import Store, default_store_url
from linearch.errors import StoreError

# Drawn here, for named icons come from a server on the internet.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path d="M2 13 6 7l4 3 4-7" fill="none" stroke="#4263eb" stroke-width="2.4"/></svg>'
)
_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 2.5rem 3rem; }
[data-testid="stSidebarHeader"] { height: 2rem; margin: 0; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
</style>"""


def main() -> None:
    st.set_page_config(
        page_title="linearch", page_icon=_ICON, layout="wide", initial_sidebar_state=330
    )
    st.html(_STYLE)
    remember_filters()
    page = st.navigation(
        [st.Page(script, title=title, icon=icon) for script, (title, icon) in PAGES.items()],
        position="hidden",
    )
    try:
        store = _find_store(default_store_url())
        if store is not None and _prepare(store):
            page.run()
    except StoreError as error:
        st.error(plain(str(error)))


def _find_store(location: str) -> Store | None:
    """The open store; without one the page says why and looks again by itself."""
    if "://" not in location and not Path(location).exists():
        _say_how_to_start(f"There is no store at `{location}` yet.", location)
    else:
        try:
            return open_store(location)
        except StoreError as error:
            st.error(plain(str(error)))
    watch_for_store(location)
    return None


def _prepare(store: Store) -> bool:
    """Chooses what the page will show; False if there is no run to show."""
    token = store.queries.change_token()
    runs = runs_of(store, token)
    if not runs:
        _say_how_to_start(f"The store `{store.location}` holds no run yet.", store.location)
        watch_store(store, token)
        return False
    run = store.run(choose_run(store, runs).id)  # afresh: the list may have an old heartbeat
    show_status(store, run, token)
    show(View(store=store, run=run, token=store.queries.change_token(run.id)))
    return True


def _say_how_to_start(what: str, location: str) -> None:
    st.title("linearch", anchor=False)
    st.write(f"{what} Start a search, and this page will follow it:")
    st.code(f"launch-search{store_option(location)}", language="bash")
    st.caption("It needs no key, no GPU and no network, and takes minutes on two cores.")


main()
