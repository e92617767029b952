"""Page: what a search found out, and how sure it is: who is truly better, and do the rungs rank."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from streamlit import column_config as column

from linearch.dashboard.clicking import clickable_figure, clickable_table
from linearch.dashboard.findings_figures import foretelling_figure
from linearch.dashboard.links import open_architecture
from linearch.dashboard.reading import View, current_view
from linearch.dashboard.wording import fixed, interval, plain, signed
from linearch.db import StatisticRow
from linearch.finding_lines import not_ranking, ranking_verdict

_COEFFICIENTS = {"spearman": "Spearman", "kendall": "Kendall τ-b", "top_recall": "top fifth found"}
_POPULATIONS = {"all": "candidates and baselines", "candidates": "candidates alone"}


def render() -> None:
    view = current_view()
    st.title("Findings", anchor=False)
    compared = view.statistics("comparison")
    ranking = view.statistics("rank_correlation")
    if not compared and not ranking:
        st.info("What a search found out is computed when it ends; so far it goes on.")
        return
    _show_comparisons(view, compared)
    _show_curse(view.statistics("winners_curse"))
    _show_ranking(view, ranking)


def _show_comparisons(view: View, rows: tuple[StatisticRow, ...]) -> None:
    st.subheader("Truly better than a baseline", anchor=False)
    known = [row for row in rows if row.detail and row.architecture_id]
    if not known:
        st.info("Seeds or baselines are missing on the last rung, so nothing can be compared.")
        return
    is_fresh = any(_detail(row)["is_fresh"] for row in known)
    only_fresh = is_fresh and st.toggle("Only what was measured again", value=True, key="fresh")
    shown = [row for row in known if _detail(row)["is_fresh"] or not only_fresh]
    first = _detail(shown[0])
    st.caption(
        f"95 % intervals of the difference, Šidák-corrected for {first['n_comparisons']} "
        f"comparisons; seeds differ by σ = {fixed(first['sd'])} bits per byte with "
        f"{first['freedom']} degrees of freedom. A candidate measured again is judged by its fresh "
        "seeds alone, paired where the baseline has them too; any "
        "other by the score it may have been chosen by, corrected for all tried."
    )
    opened = clickable_table(_comparison_frame(shown), _comparison_columns(), "comparisons")
    if opened is not None:
        open_architecture(view, opened)


def _comparison_frame(rows: list[StatisticRow]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": _detail(row)["name"],
            "baseline": _detail(row)["baseline"],
            "verdict": _verdict(_detail(row)),
            "delta": row.value,
            "interval": interval(row.low, row.high),
            "windows": _windows(_detail(row)),
            "seeds": row.n,
            "baseline_seeds": _detail(row)["n_baseline"],
            "fresh": _detail(row)["is_fresh"],
            "paired": _detail(row).get("is_paired"),
            "seeds_needed": _detail(row)["seeds_needed"],
            "id": row.architecture_id,
        }
        for row in sorted(rows, key=lambda row: (_detail(row)["name"], row.value or 0.0))
    )


def _comparison_columns() -> dict[str, Any]:
    return {
        "name": column.TextColumn("candidate", pinned=True, width=250),
        "baseline": column.TextColumn("against"),
        "verdict": column.TextColumn("verdict"),
        "delta": column.NumberColumn("Δ bits/byte", format="%+.3f", help="Below zero is better."),
        "interval": column.TextColumn("corrected 95 %"),
        "windows": column.TextColumn(
            "on the same windows",
            help="The corrected 95 % over held-out windows: for these weights, not other seeds.",
        ),
        "seeds": column.NumberColumn("seeds", help="Of the candidate, that the verdict rests on."),
        "baseline_seeds": column.NumberColumn("its seeds", help="Of the baseline."),
        "fresh": column.CheckboxColumn("fresh", help="Seeds that it was not chosen by."),
        "paired": column.CheckboxColumn(
            "paired", help="Compared seed by seed, each pair on the same batches."
        ),
        "seeds_needed": column.NumberColumn(
            "seeds to decide", help="Each side, if the difference and the noise are as they seem."
        ),
    }


def _windows(detail: dict[str, Any]) -> str | None:
    found = detail.get("windows")
    return None if found is None else interval(found["low"], found["high"])


def _verdict(detail: dict[str, Any]) -> str:
    return "better" if detail["is_better"] else "worse" if detail["is_worse"] else "undecided"


def _show_curse(rows: tuple[StatisticRow, ...]) -> None:
    """First scores beside fresh ones."""
    known = [row for row in rows if row.detail and row.architecture_id]
    if not known:
        return
    st.subheader("Winner's curse", anchor=False)
    total = next((row for row in rows if row.architecture_id is None), StatisticRow())
    st.markdown(
        f"The score they were chosen by minus the mean of fresh seeds: **{signed(total.value)}** "
        f"bits per byte on average ({interval(total.low, total.high)}). Below zero, the first "
        "score had flattered them."
    )
    for row in known:
        detail = _detail(row)
        st.caption(
            f"{plain(detail['name'])}: first {fixed(detail['first'])}, then "
            f"{fixed(detail['fresh_mean'])} over {row.n} fresh seeds ({signed(row.value)})"
        )


def _show_ranking(view: View, rows: tuple[StatisticRow, ...]) -> None:
    st.subheader("Do the rungs rank?", anchor=False)
    if not rows:
        st.info(
            "Too few architectures have a score on two rungs, so no rung's order can be checked."
        )
    for rung in sorted({row.rung for row in rows if row.rung is not None}):
        here = [row for row in rows if row.rung == rung and row.detail]
        for row in here:
            said = ranking_verdict(row)
            if said is not None and _detail(row)["population"] == "all":
                (st.warning if not_ranking(row) else st.info)(said)
        left, right = st.columns([3, 2], gap="large")
        with left:
            st.dataframe(
                pd.DataFrame(_ranking_line(row) for row in here),
                key=f"ranking_{rung}",
                hide_index=True,
            )
            st.caption(_population_note(_detail(here[0])))
        with right:
            figure = foretelling_figure(view.leaderboard(), rung, _drawn(here))
            opened = clickable_figure(figure, f"foretelling_{rung}")
            if opened is not None:
                open_architecture(view, opened)


def _ranking_line(row: StatisticRow) -> dict[str, Any]:
    detail = _detail(row)
    known = row.low is not None and row.high is not None
    return {
        "rungs": f"{row.rung} → {detail['next_rung']}",
        "of": _POPULATIONS[detail["population"]],
        "measure": _COEFFICIENTS[detail["coefficient"]],
        "value": fixed(row.value, 2),
        "95 %": f"{row.low:.2f} to {row.high:.2f}" if known else None,
        "n": row.n,
    }


def _population_note(detail: dict[str, Any]) -> str:
    pruned, drawn = detail["n_pruned"], detail["n_drawn"]
    if not pruned:
        return "Everything climbed, so this holds for all."
    if not drawn:
        return f"Of {pruned} pruned none was measured on the next rung: it holds for the others."
    return (
        f"By lot {drawn} of {pruned} pruned climbed (ringed), in the place of all of these: "
        "without any, only the good ones would be compared."
    )


def _drawn(rows: list[StatisticRow]) -> set[str]:
    return {id_ for row in rows for id_ in _detail(row).get("drawn_ids", ())}


def _detail(row: StatisticRow) -> dict[str, Any]:
    return row.detail or {}


render()
