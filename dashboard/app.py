"""The dashboard's entry script: finds the store, picks the run, runs the page.

Streamlit executes it, and then the page's script, anew at every interaction and every change.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from linearch.dashboard.links import PAGES
from linearch.dashboard.reading import View, open_store, runs_of, show
from linearch.dashboard.sidebar import choose_run, show_status
from linearch.dashboard.watching import watch_for_file, watch_store
from linearch.dashboard.wording import START_COMMAND
from linearch.db import default_store_url
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
    page = st.navigation(
        [st.Page(script, title=title, icon=icon) for script, (title, icon) in PAGES.items()],
        position="hidden",
    )
    location = default_store_url()
    if "://" not in location and not Path(location).exists():
        _say_how_to_start(f"There is no store at `{location}` yet.")
        watch_for_file(Path(location))
        return
    try:
        if _prepare(location):
            page.run()
    except StoreError as error:
        st.error(str(error))


def _prepare(location: str) -> bool:
    """Chooses what the page will show; False if there is no run to show."""
    store = open_store(location)
    token = store.queries.change_token()
    runs = runs_of(store, token)
    if not runs:
        _say_how_to_start(f"The store `{store.location}` holds no run yet.")
        watch_store(store, token)
        return False
    run = choose_run(store, runs)
    view = View(store=store, run=run, token=store.queries.change_token(run.id))
    show_status(view, token)
    show(view)
    return True


def _say_how_to_start(what: str) -> None:
    st.title("linearch")
    st.write(f"{what} Start a search in this folder, and this page will follow it:")
    st.code(START_COMMAND, language="bash")
    st.caption("It needs no key, no GPU and no network; `--store` names another store.")


main()
