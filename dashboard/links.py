"""The pages and their addresses: each link carries the run, so that any of them can be shared."""

from __future__ import annotations

import streamlit as st

from .reading import View

LEADERBOARD, ARCHITECTURE = "leaderboard.py", "architecture.py"
FINDINGS, LINEAGE = "findings.py", "lineage.py"
PROGRESS, RUNS = "progress.py", "runs.py"
PAGES: dict[str, tuple[str, str]] = {  # script: title, icon
    LEADERBOARD: ("Leaderboard", ":material/leaderboard:"),
    ARCHITECTURE: ("Architecture", ":material/deployed_code:"),
    FINDINGS: ("Findings", ":material/query_stats:"),
    LINEAGE: ("Lineage", ":material/account_tree:"),
    PROGRESS: ("Progress", ":material/monitoring:"),
    RUNS: ("Runs", ":material/history:"),
}


def page_link(script: str, run_id: str) -> None:
    title, icon = PAGES[script]
    st.page_link(script, label=title, icon=icon, query_params={"run": run_id}, width="stretch")


def architecture_link(view: View, architecture_id: str, label: str) -> None:
    address = {"run": view.run.id, "architecture": architecture_id}
    st.page_link(ARCHITECTURE, label=label, query_params=address)


def open_architecture(view: View, architecture_id: str) -> None:
    """Leaves the current page; nothing after it runs."""
    address = {"run": view.run.id, "architecture": architecture_id}
    st.switch_page(ARCHITECTURE, query_params=address)


def open_run(run_id: str) -> None:
    """Leaves the current page for the run's leaderboard; nothing after it runs."""
    st.switch_page(LEADERBOARD, query_params={"run": run_id})
