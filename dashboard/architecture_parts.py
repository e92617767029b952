"""The parts of an architecture's page that are not code or trials."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import streamlit as st
from streamlit import column_config as column

from ..db import ArchitectureDetail, GateRow, LeaderboardRow, LLMCallRow
from ..search_space.library import BASELINES
from .columns import deviations_of
from .links import architecture_link
from .reading import View
from .wording import (
    DASH,
    STATE_COLOURS,
    fixed,
    interval,
    local_time,
    plain,
    short,
    signed,
    size,
    store_option,
    whole,
)

_VERDICTS = {True: "✓ passed", False: "✗ failed", None: "– none"}


def show_header(detail: ArchitectureDetail) -> None:
    row = detail.architecture
    st.title(plain(row.name), anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(row.state, color=STATE_COLOURS.get(row.state, "gray"))
        st.badge("reference" if row.is_reference else row.origin, color="gray")
        if row.family:
            st.badge(plain(row.family), color="gray")
        st.badge(f"layers {row.pattern}", color="gray")
        created = f"{local_time(row.created_at):%Y-%m-%d %H:%M:%S}"
        st.caption(f"`{row.id}` · no. {row.number} · proposed {created}", width="content")
    if row.state == "rejected":
        st.error(f"Rejected by **{row.rejected_by}**: {plain(row.reason or DASH)}")
    elif row.state == "quarantined":
        st.warning(
            f"In quarantine, since its score is too good to be believed unseen: "
            f"{plain(row.reason or DASH)}. An audit that passes releases it."
        )
    elif row.state == "failed":
        st.warning(f"No training gave a score: {plain(row.reason or DASH)}")


def show_numbers(view: View, row: LeaderboardRow | None) -> None:
    """The measurements that the leaderboard quotes, with the trials behind them."""
    if row is None or row.val_bpb is None:
        return
    ties = Counter(other.tie for other in view.leaderboard())
    tied = "=" if row.tie is not None and ties[row.tie] > 1 else ""
    deviations = deviations_of(view.statistics("delta")).get((row.id, row.rung))
    numbers = {
        "rank": DASH if row.rank is None else f"{tied}{row.rank}",
        "val bits/byte": fixed(row.val_bpb),
        f"Δ to {view.noise_baseline}": signed(row.delta),
        "σ better": signed(deviations, 1),
        **{task: f"{share:.0%}" for task, share in row.recall.items()},
        "parameters": whole(row.n_params),
        "state": size(row.state_bytes),
        "tokens/s": whole(row.tokens_per_s),
        "peak memory": size(row.peak_memory_bytes),
    }
    with st.container(horizontal=True, border=True, gap="medium"):
        for label, value in numbers.items():
            st.metric(label, value, width="content")
    trials = ", ".join(f"`{id_}`" for id_ in row.trial_ids)
    bounds = interval(row.delta_low, row.delta_high)
    st.caption(
        f"Rung {row.rung}, {whole(row.tokens)} tokens, {row.n_seeds} seed(s), from trial {trials}."
        + (f" 95 % interval of Δ: {bounds}." if bounds else "")
    )


def show_reasons(detail: ArchitectureDetail) -> None:
    """Why it should work, what was expected, and what was concluded since."""
    row = detail.architecture
    st.subheader("Why", anchor=False)
    known = BASELINES.get(row.name) if row.is_baseline else None
    if known:
        st.markdown(f"{known.title}, [arXiv {known.paper}](https://arxiv.org/abs/{known.paper})")
        st.code(known.recurrence, language=None, wrap_lines=True)
    else:
        st.markdown(plain(row.motivation or DASH))
    if row.expectation:
        st.markdown("**Expected**")
        st.markdown(plain(row.expectation))
    for note in detail.analyses:
        st.markdown(f"**Analysis** ({plain(note.author)})")
        st.markdown(plain(note.body))


def show_relatives(view: View, detail: ArchitectureDetail) -> None:
    for heading, relatives in (("Parents", detail.parents), ("Children", detail.children)):
        if relatives:
            st.markdown(f"**{heading}**")
            with st.container(horizontal=True):
                for relative in relatives:
                    label = f"{plain(relative.name)} ({relative.kind}, {relative.state})"
                    architecture_link(view, relative.id, label)


def show_usage(view: View, detail: ArchitectureDetail) -> None:
    """How to take it home, as far as it can be."""
    row = detail.architecture
    st.subheader("Use it", anchor=False)
    if row.state == "rejected":
        st.caption("Loading a rejected source needs `trust=True`: nothing vouches for it.")
    elif row.state == "quarantined":
        st.caption("Until an audit releases it, loading it needs `trust=True`.")
    option = store_option(view.store.location)
    place = f"\n    store={view.store.location!r},\n" if option else ""
    load = f'\n    "{row.id}",{place}' if option else f'"{row.id}"'
    st.code(f"import linearch\n\nMixer = linearch.load_mixer({load})", language="python")
    if row.state == "quarantined":
        st.code(f"linearch audit {row.id} --release{option}", language="bash", wrap_lines=True)
    elif row.state == "measured":
        commands = (
            f"linearch export {row.id} --to DIR{option}",
            f"linearch replay {row.id} --verify{option}",
        )
        st.code("\n".join(commands), language="bash", wrap_lines=True)


def show_gates(detail: ArchitectureDetail) -> None:
    if not detail.gates:
        st.info("It did not come to the gates.")
        return
    st.dataframe(
        pd.DataFrame(_gate_line(gate) for gate in detail.gates),
        key="gates",
        hide_index=True,
        placeholder=DASH,
        column_config={
            "gate": column.TextColumn("gate", pinned=True),
            "verdict": column.TextColumn("verdict", pinned=True),
            "stage": column.TextColumn(
                "stage",
                help="cpu: in float32 on the processor; device: where and how the search trains; "
                "trained: on the weights that the last training left.",
            ),
            "sandbox": column.TextColumn("sandbox", help="The level of containment."),
            "seconds": column.NumberColumn("seconds", format="%.2f"),
            "evidence": column.TextColumn("evidence", width="large"),
        },
    )


def _gate_line(gate: GateRow) -> dict[str, object]:
    evidence = ", ".join(f"{name} {short(value)}" for name, value in gate.evidence.items())
    return {
        "gate": gate.gate,
        "stage": gate.stage,
        "verdict": _VERDICTS[gate.passed],
        "evidence": evidence if gate.passed is not None else f"not applicable: {gate.reason}",
        "reason": gate.reason,
        "seconds": gate.duration_s,
        "sandbox": gate.sandbox,
    }


def show_calls(view: View, detail: ArchitectureDetail) -> None:
    """The model's calls that led to it, with their prompts and replies on demand."""
    if not detail.llm_calls:
        return
    st.subheader("Model calls", anchor=False)
    st.dataframe(
        pd.DataFrame(_call_line(call) for call in detail.llm_calls),
        key="calls",
        hide_index=True,
        placeholder=DASH,
        column_config={
            "input_tokens": column.NumberColumn("tokens in", format="localized"),
            "output_tokens": column.NumberColumn("tokens out", format="localized"),
            "cost_usd": column.NumberColumn("cost", format="$%.4f"),
            "latency_s": column.NumberColumn("took s", format="%.1f"),
        },
    )
    for number, call in enumerate(detail.llm_calls, start=1):
        if st.toggle(f"Texts of call {number} ({call.role})", key=f"texts_{call.id}"):
            st.code(view.store.queries.text(call.prompt_hash), language="markdown", height=320)
            if call.reply_hash is not None:
                st.code(view.store.queries.text(call.reply_hash), language="markdown", height=320)


def _call_line(call: LLMCallRow) -> dict[str, object]:
    return {
        "role": call.role,
        "model": call.model,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "cost_usd": call.cost_usd,
        "latency_s": call.latency_s,
        "error": call.error,
    }
