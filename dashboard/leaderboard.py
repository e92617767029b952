"""Page: all architectures of a run by their measurements, and what has none yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from linearch.dashboard.clicking import clickable_figure, clickable_table
from linearch.dashboard.columns import (
    SELDOM,
    deviations_of,
    scored_columns,
    scored_frame,
    scored_table,
    tasks_of,
    unscored_columns,
    unscored_frame,
)
from linearch.dashboard.figures import Noise, noise_of
from linearch.dashboard.filters import choose_filters
from linearch.dashboard.leaderboard_figures import (
    COSTS,
    MOST_BARS,
    cost_title,
    pareto_figure,
    score_figure,
)
from linearch.dashboard.links import open_architecture
from linearch.dashboard.reading import View, current_view
from linearch.dashboard.wording import fixed
from linearch.db import RECALL, LeaderboardRow


def render() -> None:
    view = current_view()
    rows = view.leaderboard()
    st.title("Leaderboard", anchor=False)
    floors = noise_of(view.statistics("noise_floor"), view.noise_baseline)
    st.markdown(_noise_sentence(floors))
    if not rows:
        st.info("Nothing was proposed yet; the baselines come first.")
        return
    filters = choose_filters(rows)
    shown = filters.apply(rows)
    scored = [row for row in shown if row.val_bpb is not None]
    unscored = [row for row in shown if row.val_bpb is None]
    _show_scored(view, rows, scored, is_pinned=filters.pin_baselines)
    _show_figures(view, scored, floors)
    _show_unscored(view, unscored)


def _noise_sentence(floors: dict[int, Noise]) -> str:
    if not floors:
        return "The noise floor is not measured yet, so no difference can be called one."
    noise = floors[max(floors)]
    between = (
        f" (95 % interval {fixed(noise.low)} to {fixed(noise.high)})"
        if noise.low is not None and noise.high is not None
        else ""
    )
    return (
        f"**Noise floor:** {noise.n} seeds of `{noise.baseline}` differ by σ = {fixed(noise.sd)}"
        f"{between} bits per byte at rung {max(floors)}. Two single runs resolve "
        f"{fixed(noise.resolution)}; what lies closer shares a rank, marked `=`."
    )


def _show_scored(
    view: View,
    rows: Sequence[LeaderboardRow],
    scored: Sequence[LeaderboardRow],
    *,
    is_pinned: bool,
) -> None:
    n_scored = sum(row.val_bpb is not None for row in rows)
    if not n_scored:
        st.info("No architecture has a score yet. The first ones appear here by themselves.")
        return
    ties = Counter(row.tie for row in rows)
    frame = scored_frame(scored, deviations_of(view.statistics("delta")), ties)
    with st.container(horizontal=True, vertical_alignment="center"):
        order = "The baselines first, each part by rank." if is_pinned else "By rank."
        st.caption(
            f"{len(scored)} of {n_scored} scored architectures. {order} Tick a row or click a name "
            "for its code, gates and trials.",
            width="stretch",
        )
        st.download_button(
            "Download CSV",
            lambda: frame.to_csv(index=False),  # made on demand
            f"leaderboard-{view.run.id}.csv",
            "text/csv",
            on_click="ignore",
        )
    if not scored:
        st.info("No scored architecture passes these filters.")
        return
    columns = scored_columns(view.noise_baseline, tasks_of(scored))
    for name in SELDOM:
        if frame[name].isna().all():
            del columns[name]
    opened = clickable_table(scored_table(frame), columns, "scored")
    if opened is not None:
        open_architecture(view, opened)


def _show_unscored(view: View, unscored: Sequence[LeaderboardRow]) -> None:
    if not unscored:
        return
    st.subheader("Without a score", anchor=False)
    opened = clickable_table(unscored_frame(unscored), unscored_columns(), "unscored")
    if opened is not None:
        open_architecture(view, opened)


def _show_figures(view: View, scored: Sequence[LeaderboardRow], floors: dict[int, Noise]) -> None:
    if not scored:
        return
    rung = max(row.rung or 0 for row in scored)  # scores of different rungs do not compare
    drawn = [row for row in scored if row.rung == rung]
    left, right = st.columns(2, gap="large")
    with left:
        _show_scores(view, drawn, floors.get(rung), rung)
    with right:
        _show_pareto(view, drawn)


def _show_scores(view: View, drawn: list[LeaderboardRow], noise: Noise | None, rung: int) -> None:
    st.subheader("Scores over the noise", anchor=False)
    best = sorted(drawn, key=lambda row: row.val_bpb or 0.0)
    first, rest = best[:MOST_BARS], best[MOST_BARS:]
    first += [row for row in rest if row.is_baseline]
    left_out = len(drawn) - len(first)
    more = f" The best {MOST_BARS} and the baselines; {left_out} are left out." if left_out else ""
    st.caption(
        f"Rung {rung}. Bars: 95 % interval of the difference to the dotted baseline; inside the "
        f"band a single run cannot be told from it.{more}"
    )
    opened = clickable_figure(score_figure(first, noise), "scores")
    if opened is not None:
        open_architecture(view, opened)


def _show_pareto(view: View, drawn: Sequence[LeaderboardRow]) -> None:
    st.subheader("Pareto front", anchor=False)
    objectives = view.run.config.get("objectives", [])
    costs = [*COSTS, *(f"{RECALL}{task}" for task in tasks_of(drawn))]
    measured = [cost for cost in costs if any(row.measured(cost) is not None for row in drawn)]
    st.caption(f"Ringed: no other row beats it in all of {', '.join(objectives)}.")
    if not measured:
        st.info("No cost is measured yet.")
        return
    cost = st.selectbox("Against", measured, format_func=cost_title, key="cost")
    opened = clickable_figure(pareto_figure(drawn, cost, objectives), f"pareto_{cost}")
    if opened is not None:
        open_architecture(view, opened)


render()
