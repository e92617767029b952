"""What of the leaderboard is shown: the widgets, and the choice as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ..db import LeaderboardRow
from .columns import origin_of

_KEYS = ("search", "origins", "states", "families", "rungs", "pin_baselines")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Empty choices let everything through."""

    text: str = ""
    origins: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    rungs: tuple[int, ...] = ()
    pin_baselines: bool = False

    def admits(self, row: LeaderboardRow) -> bool:
        words = self.text.lower().split()
        searched = f"{row.name} {row.motivation} {row.id}".lower()
        chosen: Sequence[tuple[Sequence[object], object]] = (
            (self.origins, origin_of(row)),
            (self.states, row.state),
            (self.families, row.family),
            (self.rungs, row.rung),
        )
        return all(word in searched for word in words) and all(
            not wanted or value in wanted for wanted, value in chosen
        )

    def apply(self, rows: Iterable[LeaderboardRow]) -> list[LeaderboardRow]:
        """The admitted rows in their order, baselines first if they are pinned."""
        admitted = [row for row in rows if self.admits(row)]
        if self.pin_baselines:
            admitted.sort(key=lambda row: not row.is_baseline)  # stable
        return admitted


def remember_filters() -> None:
    """Keeps the choice over visits of other pages: a value written again is not dropped with its
    widget. To be called on every page."""
    st.session_state.setdefault("pin_baselines", False)
    for key in _KEYS:
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]


def choose_filters(rows: Sequence[LeaderboardRow]) -> Filters:
    """Draws the widgets; what they hold outlives changes of the rows."""
    text, origin, state, family, rung, pin = st.columns(
        [2.8, 2, 2, 2.8, 1.5, 2.5], vertical_alignment="bottom"
    )
    with text:
        words = st.text_input("Search", key="search", placeholder="name, motivation or id")
    return Filters(
        text=words,
        origins=_some(origin, "By", "origins", rows, origin_of),
        states=_some(state, "State", "states", rows, lambda row: row.state),
        families=_some(family, "Family", "families", rows, lambda row: row.family),
        rungs=_some(rung, "Rung", "rungs", rows, lambda row: row.rung),
        pin_baselines=pin.toggle("Pin baselines", key="pin_baselines"),
    )


def _some(
    place: DeltaGenerator,
    label: str,
    key: str,
    rows: Iterable[LeaderboardRow],
    value: Callable[[LeaderboardRow], Any],
) -> tuple[Any, ...]:
    """A multiple choice among the values that occur; what is chosen stays if it no longer does."""
    present = {value(row) for row in rows} - {None}
    options = sorted(present | set(st.session_state.get(key, ())))
    return tuple(place.multiselect(label, options, key=key, placeholder="all"))
